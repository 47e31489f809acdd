"""Measure what it brings that a language model reads choices: on the prompts of an example.

Every template of examples/prompts.py is scored once; then searches are replayed on these scores
with the same seeds: with the templates read, by the same sampler without a language model, by TPE
and at random. Templates and reviews were written before the first score and not changed since.
The templates are listed in another order for each seed; and once more in the order of the file,
which happens to matter: without a language model untried choices are tied, and the first is taken.

    python -m benchmarks.prompts            # 7 minutes of one core: scores, then searches
    python -m benchmarks.prompts --replay   # 2 minutes: the searches alone
    python -m benchmarks.prompts --report   # the kept results as Markdown
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.samplers import RandomSampler
from optuna.samplers import TPESampler

from benchmarks.console import table
from benchmarks.provenance import commit
from benchmarks.race.run import provenance
from benchmarks.race.statistics import bootstrap
from examples import prompts
from optuna_llmbo import LLMBOSampler
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source


RESULTS = Path(__file__).parent / "results" / "prompts.json"
N_TRIALS, N_SEEDS = 25, 10
SHOWN = (6, 10, 15, 20, 25)
SHUFFLED, LISTED = "shuffled", "as listed"
READ, UNREAD = "templates read", "no language model"
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    READ: lambda seed: LLMBOSampler(llm="embedded", seed=seed),
    UNREAD: lambda seed: LLMBOSampler(llm=None, seed=seed),
    "TPESampler": lambda seed: TPESampler(seed=seed),
    "RandomSampler": lambda seed: RandomSampler(seed=seed),
}


def scores() -> list[dict[str, Any]]:
    """Score every template on the reviews of the search and on those held out."""
    model = load_model(resolve_source("embedded"), device="cpu")
    return [
        {
            "prompt": prompt,
            "searched": prompts.score(model, prompt, prompts.SEARCHED),
            "held_out": prompts.score(model, prompt, prompts.HELD_OUT),
        }
        for prompt in prompts.templates()
    ]


def order_of(kind: str, n: int, seed: int) -> list[int]:
    """Order the places of n templates for one seed."""
    return list(np.random.default_rng(seed).permutation(n)) if kind == SHUFFLED else list(range(n))


def run(losses: dict[str, float], order: list[int], sampler: BaseSampler) -> list[int]:
    """Search over templates with known losses.

    Args:
        losses: by template.
        order: places of the templates, in which the sampler has them listed.
        sampler: a new one.

    Returns:
        The place of each trial's template among the losses.
    """
    templates = list(losses)
    places = {template: place for place, template in enumerate(templates)}
    listed = [templates[place] for place in order]

    def objective(trial: optuna.Trial) -> float:
        return losses[trial.suggest_categorical("prompt", listed)]

    study = optuna.create_study(direction="minimize", sampler=sampler)
    study.optimize(objective, n_trials=N_TRIALS)
    return [places[trial.params["prompt"]] for trial in study.trials]


def studies(losses: dict[str, float], kind: str) -> dict[str, list[list[int]]]:
    """Run all seeds of every sampler; places by sampler, seed and trial."""
    return {
        name: [
            run(losses, order_of(kind, len(losses), seed), sampler_of(seed))
            for seed in range(N_SEEDS)
        ]
        for name, sampler_of in SAMPLERS.items()
    }


def report(record: dict[str, Any]) -> str:
    """Format the scores' spread, then the regrets for templates in both orders."""
    losses, held_out = (
        np.array([score[part][0] for score in record["scores"]])
        for part in ("searched", "held_out")
    )
    spread = [
        [title, *(f"{np.quantile(part, q):.3f}" for q in (0, 0.05, 0.25, 0.5, 1))]
        for title, part in (("searched", losses), ("held out", held_out))
    ]
    tables = [
        _regrets(kind, places, losses, held_out) for kind, places in record["studies"].items()
    ]
    head = ["loss, nats", "best", "5%", "25%", "median", "worst"]
    return "\n\n".join([table(head, spread), *tables])


def _regrets(
    kind: str, places: dict[str, list[list[int]]], losses: np.ndarray, held_out: np.ndarray
) -> str:
    """Format mean regrets over seeds, and gains with 95% bootstrap intervals.

    The regret is the loss of the best template so far above that of the best of all, in
    thousandths of a nat; the gain is how much lower it is, seed by seed, with the templates read.
    """
    regrets = {
        name: 1000 * (np.minimum.accumulate(losses[np.array(chosen)], axis=1) - losses.min())
        for name, chosen in places.items()
    }
    rows = []
    for name, regret in regrets.items():
        chosen = np.array(places[name])
        found = chosen[range(len(chosen)), losses[chosen].argmin(axis=1)]
        means = (f"{regret[:, n - 1].mean():.1f}" for n in SHOWN)
        rows.append([name, *means, f"{held_out[found].mean():.3f}"])
    for name in list(regrets)[1:]:
        gains = [
            bootstrap(regrets[name][:, n - 1] - regrets[READ][:, n - 1], np.mean) for n in SHOWN
        ]
        cells = (f"{gain.value:.1f} ({gain.low:.1f} to {gain.high:.1f})" for gain in gains)
        rows.append([f"gain over {name}", *cells, ""])
    return table([f"{kind}: regret after", *map(str, SHOWN), "held-out loss"], rows)


def main() -> None:
    """Score, search, save and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replay", action="store_true", help="search on the kept scores")
    parser.add_argument("--report", action="store_true", help="only print the kept results")
    options = parser.parse_args()
    if not options.report:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        began_at = commit()
        kept = json.loads(RESULTS.read_text())["scores"] if options.replay else scores()
        losses = {score["prompt"]: score["searched"][0] for score in kept}
        found = {kind: studies(losses, kind) for kind in (SHUFFLED, LISTED)}
        record = {"scores": kept, "studies": found, **provenance(), "commit": began_at}
        RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(report(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
