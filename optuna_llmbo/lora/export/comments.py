"""The comments at the head of an exported file: where it comes from, and what to look at."""

from __future__ import annotations

from optuna_llmbo.lora.export.facts import Facts


def head(facts: Facts, tool: str, commands: tuple[str, ...]) -> list[str]:
    """Lines without a comment sign.

    Args:
        facts: of the training.
        tool: its name.
        commands: to be run in the folder of the files, in this order.
    """
    recipe = facts.recipe
    lines = [f"LoRA fine-tuning with {tool}, written by optuna-llmbo.", *facts.origin, ""]
    lines += ["Run in this folder:", *(f"    {command}" for command in commands), ""]
    lines += [
        f"Model: {facts.model}; data: {facts.train}. Fill in where they are on the machine that",
        "trains, here and in make_data.py."
        if not facts.is_written_out
        else "trains. The data are in data/, tokenized or rendered as the trials trained on them.",
        f"A batch of {recipe.batch_size} on one device: with k devices, divide the accumulation",
        "by k.",
    ]
    if facts.warmup_steps:
        lines.append(
            f"The warm-up is {recipe.warmup_ratio:g} of the {facts.steps} steps that "
            f"{facts.n_examples} examples make: change it with the data."
        )
    return lines
