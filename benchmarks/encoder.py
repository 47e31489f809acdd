"""Compare the encoder with the ways of reading that it replaces, and with the machine's limit.

The same configurations are read three ways in one run, after the passage of the LoRA pack:

- naive: every prompt whole, in padded batches, as the paper's code does (batches of 4 on a CPU,
  where larger ones take longer);
- shared passage: the passage once, every assignment after its cached keys and values;
- trie: `optuna_llmbo.embedding.trie_reader`, each distinct prefix once.

Three tasks: the first read; a re-read with a new value of the learnable token; one step of the
fit, forward and backward, for 30 configurations. Two spaces: a slice of the paper's grid of 45,360
configurations, contiguous in the order in which they are read (so that what a configuration costs
is what it costs in the whole grid), and a continuous space, in which little is shared.

"limit_ratio" is the time that the trie's first read would take at the speed of a large matrix
product on this machine (measured right before and after), over the time it took. What counts as
needed: each distinct prefix once, with attention to its own past only.

    python -m benchmarks.encoder                              # 20 minutes on 2 cores
    python -m benchmarks.encoder --configurations 45360 --naive 32 --repeats 1
    python -m benchmarks.encoder --json --save benchmarks/results/encoder/NAME.json
    python -m benchmarks.encoder --report                     # the kept results as Markdown
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
import functools
from itertools import islice
from itertools import product
import json
import os
from pathlib import Path
import resource
import statistics
import time
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.device import is_cuda
from benchmarks.device import matrix_rate
from benchmarks.device import name as name_of
from benchmarks.device import peak_bytes
from benchmarks.device import timed
from benchmarks.provenance import commit
from benchmarks.provenance import versions
from optuna_llmbo.embedding.encoder import MEMORY_BYTES
from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.embedding.plain_reader import PlainReader
from optuna_llmbo.embedding.trie import chunks
from optuna_llmbo.embedding.trie import TokenIds
from optuna_llmbo.embedding.trie_reader import TrieReader
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.lora.resources import reset_peak_memory
from optuna_llmbo.space.prompt import Prompt
from optuna_llmbo.space.search_space import SearchSpace


# The paper's grid (arXiv:2602.11171), 45,360 configurations
GRID: dict[str, list[float]] = {
    "rank": [1, 2, 4, 8, 16, 32, 64, 128, 256],
    "alpha_ratio": [0.5, 1, 2, 4, 8, 16, 32, 64, 128],
    "dropout": [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3],
    "batch_size": [2, 4, 8, 16, 32, 64, 128, 256],
    "learning_rate": [1e-6, 5e-6, 2e-5, 3e-5, 5e-5, 1e-4, 3e-4, 4e-4, 5e-4, 5e-3],
}
CONTINUOUS: dict[str, BaseDistribution] = {
    "rank": IntDistribution(1, 256, log=True),
    "alpha_ratio": FloatDistribution(0.5, 128, log=True),
    "dropout": FloatDistribution(0.0, 0.3),
    "batch_size": IntDistribution(2, 256, log=True),
    "learning_rate": FloatDistribution(1e-6, 5e-3, log=True),
}
RESULTS = Path(__file__).parent / "results" / "encoder"
N_FIT = 30
N_FIT_NAIVE = 5
BATCH = 16
PACKAGES = ("optuna-llmbo", "torch", "transformers")


@dataclass(frozen=True)
class Texts:
    """Tokenized configurations."""

    passage: TokenIds
    sequences: list[TokenIds]

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def tokens_naive(self) -> int:
        """Number of tokens read naively, the learnable token included."""
        return sum(len(self.passage) + len(sequence) + 1 for sequence in self.sequences)

    @property
    def tokens_shared(self) -> int:
        """Number of tokens read with the passage read once."""
        return len(self.passage) + sum(len(sequence) + 1 for sequence in self.sequences)


def grid(n: int) -> tuple[SearchSpace, list[dict[str, Any]]]:
    """Return the first n configurations of the grid, in the order in which they are read."""
    space = SearchSpace({name: CategoricalDistribution(v) for name, v in GRID.items()})
    order = Prompt(space, load_knowledge(None)).order
    values = islice(product(*(GRID[name] for name in order)), n)
    return space, [dict(zip(order, row, strict=True)) for row in values]


def continuous(n: int, seed: int) -> tuple[SearchSpace, list[dict[str, Any]]]:
    """Draw n uniformly random configurations."""
    space = SearchSpace(CONTINUOUS)
    points = np.random.default_rng(seed).random((n, len(CONTINUOUS)))
    rows = [{k: space.axis(k).from_unit(u) for k, u in zip(CONTINUOUS, row, strict=True)}
            for row in points]  # fmt: skip
    return space, rows


def texts_of(llm: LanguageModel, space: SearchSpace, rows: Sequence[dict[str, Any]]) -> Texts:
    """Tokenize what the sampler would have read."""
    prompt = Prompt(space, load_knowledge("auto").relevant(space.names))
    memo: dict[str, TokenIds] = {}

    def ids(line: str) -> TokenIds:
        if line not in memo:
            memo[line] = tuple(llm.tokenizer(line, add_special_tokens=False).input_ids)
        return memo[line]

    sequences = [sum(map(ids, prompt.assignment(row)), ()) for row in rows]
    return Texts(ids(prompt.passage), list(dict.fromkeys(sequences)))


def flops_needed(llm: LanguageModel, texts: Texts) -> float:
    """Count the operations of the trie's first read: weights and attention per position."""
    config, body = llm.body.config, llm.body
    embedding = body.get_input_embeddings().weight.numel()
    weights = sum(w.numel() for w in body.parameters()) - embedding
    width = config.num_attention_heads * getattr(
        config, "head_dim", config.hidden_size // config.num_attention_heads
    )
    t0 = len(texts.passage)
    keys = [*range(1, t0 + 1)]
    for chunk in chunks(sorted(texts.sequences), limit=1024):
        keys += [t0 + depth + 1 for depth in chunk.depths[len(chunk.carried) :]]
        keys += [t0 + chunk.depths[end] + 2 for end in chunk.ends]
    attention = 4 * width * config.num_hidden_layers
    return float(sum(2 * weights + attention * n for n in keys))


def shared_passage(llm: LanguageModel, texts: Texts, token: Tensor) -> Tensor:
    """Embed with a cached prefix, as serving systems do: each assignment whole, after it."""
    embed = llm.body.get_input_embeddings()
    passage = torch.tensor([texts.passage], device=llm.device)
    past = llm.body(passage, use_cache=True).past_key_values
    rows = []
    for batch in batches(texts.sequences):
        cache = DynamicCache()
        for i, layer in enumerate(past.layers):
            keys, values = (x.expand(len(batch), -1, -1, -1) for x in (layer.keys, layer.values))
            cache.update(keys, values, i)
        inputs = [embed(torch.tensor(sequence, device=llm.device)) for sequence in batch]
        prompts = [torch.cat([x, token.to(x)[None]]) for x in inputs]
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        padded = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
        states = llm.body(inputs_embeds=padded, past_key_values=cache).last_hidden_state
        rows.append(states[torch.arange(len(batch)), lengths - 1].float().cpu())
    return torch.cat(rows)


def batches(sequences: Sequence[TokenIds]) -> Iterator[Sequence[TokenIds]]:
    """Split into batches, in the given order."""
    for start in range(0, len(sequences), BATCH):
        yield sequences[start : start + BATCH]


def fit_step(embed: Callable[[Tensor], Tensor], token: Tensor) -> None:
    """Run forward and backward, as the training of the text view does."""
    value = token.clone().requires_grad_()
    embed(value).square().sum().backward()


def measure(llm: LanguageModel, texts: Texts, options: argparse.Namespace) -> dict[str, Any]:
    """Measure all methods and tasks on some configurations."""
    n, device = len(texts), llm.device
    with torch.no_grad():
        eos = torch.tensor([llm.tokenizer.eos_token_id], device=device)
        token = llm.body.get_input_embeddings()(eos)[0].float().cpu()
    other = token + 0.1 * token.std() * torch.randn(
        len(token), generator=torch.Generator().manual_seed(0)
    )
    memory = options.memory_mb * 2**20
    reset_peak_of_process()
    reset_peak_memory(device)
    peak = [matrix_rate(device, llm.dtype)]

    def first_read() -> tuple[TrieReader, Tensor]:
        reader = TrieReader(llm, texts.passage, "last", None, memory)
        return reader, reader.embed(texts.sequences, token)

    first, again = [], []
    with torch.no_grad():
        for _ in range(options.repeats):
            reader: Any = None  # otherwise two readers hold keys and values
            seconds, (reader, rows) = timed(first_read, device)
            first.append(seconds)
            peak.append(matrix_rate(device, llm.dtype))
            tokens_first = reader.n_positions
            seconds, changed = timed(
                functools.partial(reader.embed, texts.sequences, other), device
            )
            again.append(seconds)
            tokens_again = reader.n_positions - tokens_first
    peak_memory = peak_memory_since_reset()
    fitted = reader.prepare(texts.sequences[:: max(1, n // N_FIT)][:N_FIT])
    fit_step(fitted, token)
    step = statistics.median(timed(lambda: fit_step(fitted, token), device)[0] for _ in range(5))
    flops = statistics.median(peak)
    needed = flops_needed(llm, texts)
    result = {
        "configurations": n,
        "tokens_naive": texts.tokens_naive,
        "tokens_shared_passage": texts.tokens_shared,
        "tokens_trie": tokens_first,
        "tokens_retoken": tokens_again,
        "seconds_trie": statistics.median(first),
        "seconds_retoken": statistics.median(again),
        "seconds_fit_step": step,
        "seconds_trie_all": first,
        "seconds_retoken_all": again,
        "bytes_held": reader.bytes_held,
        "bytes_bound": memory,
        "peak_memory_bytes": peak_memory,
        "flops_needed": needed,
        "flops_per_second_possible": flops,
        "limit_ratio": needed / flops / statistics.median(first),
    }
    if is_cuda(device):
        result["peak_memory_cuda_bytes"] = peak_bytes(device)
    if options.naive:
        result |= compare(llm, texts, (token, rows), (other, changed), result, options)
    return result


def compare(
    llm: LanguageModel,
    texts: Texts,
    first: tuple[Tensor, Tensor],
    again: tuple[Tensor, Tensor],
    trie: dict[str, Any],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Measure the other ways of reading, on fewer, evenly spread configurations, times scaled."""
    n, device = len(texts), llm.device
    n_naive = min(options.naive, n)
    some = [round(i) for i in np.linspace(0, n - 1, n_naive)]
    sequences = [texts.sequences[i] for i in some]
    scale = texts.tokens_naive / Texts(texts.passage, sequences).tokens_naive
    plain = PlainReader(llm, texts.passage, (), "last", None)
    with torch.no_grad():
        naive, rows = timed(lambda: plain.embed(sequences, first[0]), device)
        shared, shared_rows = timed(
            lambda: shared_passage(llm, Texts(texts.passage, sequences), first[0]), device
        )
        few = some[:: max(1, n_naive // BATCH)][:BATCH]
        changed = plain.embed([texts.sequences[i] for i in few], again[0])
    step = plain.prepare(sequences[:N_FIT_NAIVE])
    naive_step, _ = timed(lambda: fit_step(step, first[0]), device)
    naive_step *= min(N_FIT, n) / min(N_FIT_NAIVE, n_naive)
    differences = {
        "trie": float((rows - first[1][some]).abs().max()),
        "trie, new token": float((changed - again[1][few]).abs().max()),
        "shared passage": float((rows - shared_rows).abs().max()),
    }
    seconds = naive * scale
    return {
        "naive_measured_on": n_naive,
        "seconds_naive": seconds,
        "seconds_shared_passage": shared if n_naive == n else None,
        "seconds_fit_step_naive": naive_step,
        "fit_step_naive_measured_on": min(N_FIT_NAIVE, n_naive),
        "speedup": seconds / trie["seconds_trie"],
        "speedup_shared_passage": naive / shared,
        "speedup_retoken": seconds / trie["seconds_retoken"],
        "speedup_fit_step": naive_step / trie["seconds_fit_step"],
        "max_abs_diff": max(differences["trie"], differences["trie, new token"]),
        "max_abs_diff_all": differences,
        "mean_abs_embedding": float(rows.abs().mean()),
    }


def lines_of(of: dict[str, Any]) -> Iterator[tuple[str, int, int | None, float, float | None]]:
    """Yield each task with its configurations, tokens, seconds and ratio to naive."""
    n = of["configurations"]
    n_fit = min(N_FIT, n)
    naive, step = of.get("seconds_naive"), of.get("seconds_fit_step_naive")
    if naive is not None and step is not None:
        yield "naive, any read", n, of["tokens_naive"], naive, 1.0
        yield "naive, fit step", n_fit, None, step, 1.0
        if n == of["naive_measured_on"]:  # the passage's own time does not scale
            shared = of["seconds_shared_passage"]
            tokens = of["tokens_shared_passage"]
            yield "shared passage, any read", n, tokens, shared, naive / shared
    for name, count, tokens, seconds, base in (
        ("trie, first read", n, of["tokens_trie"], of["seconds_trie"], naive),
        ("trie, new token", n, of["tokens_retoken"], of["seconds_retoken"], naive),
        ("trie, fit step", n_fit, n_fit, of["seconds_fit_step"], step),
    ):
        yield name, count, tokens, seconds, base / seconds if base else None


def show(title: str, of: dict[str, Any]) -> None:
    """Print a readable table."""
    print(f"\n{title}: {of['configurations']} configurations")
    header = ("", "tokens", "seconds", "configurations/s", "ratio to naive")
    print("{:28}{:>12}{:>12}{:>18}{:>16}".format(*header))
    for name, count, tokens, seconds, ratio in lines_of(of):
        shown = f"{ratio:.1f}" if ratio else ""
        print(f"{name:28}{tokens or '':>12}{seconds:>12.2f}{count / seconds:>18.1f}{shown:>16}")
    if "naive_measured_on" in of:
        print(
            f"largest difference to naive: {of['max_abs_diff']:.2g} (mean size "
            f"{of['mean_abs_embedding']:.2f}); naive measured on {of['naive_measured_on']} "
            "configurations"
        )
    print(
        f"distance to the limit: {of['limit_ratio']:.2f} of the speed of a matrix product "
        f"({of['flops_per_second_possible'] / 1e9:.0f} GFLOP/s)"
    )
    print(
        f"keys and values held: {of['bytes_held'] / 2**20:.0f} MiB of "
        f"{of['bytes_bound'] / 2**20:.0f}; peak memory of the process: "
        f"{of['peak_memory_bytes'] / 2**20:.0f} MiB"
    )


def report(folder: Path) -> None:
    """Print the saved results as Markdown."""
    kept = [(path.stem, json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    parts = [
        (f"{name}, {space}", of)
        for name, result in kept
        for space, of in (("grid", result), ("continuous", result["continuous"]))
        if of
    ]
    print("| run, space | what | configurations | tokens | seconds | ratio to naive |")
    print("|---|---|---|---|---|---|")
    for part, of in parts:
        for name, count, tokens, seconds, ratio in lines_of(of):
            shown = f"{ratio:.0f}" if ratio else ""
            print(f"| {part} | {name} | {count} | {tokens or ''} | {seconds:.2f} | {shown} |")
    print()
    print("| run, space | largest difference | limit ratio | memory bound | held | peak memory |")
    print("|---|---|---|---|---|---|")
    for part, of in parts:
        difference = f"{of['max_abs_diff']:.1e}" if "max_abs_diff" in of else ""
        sizes = (of["bytes_bound"], of["bytes_held"], of["peak_memory_bytes"])
        shown = " | ".join(f"{size / 2**20:.0f} MiB" for size in sizes)
        print(f"| {part} | {difference} | {of['limit_ratio']:.2f} | {shown} |")


def reset_peak_of_process() -> None:
    """Reset the process's peak memory; on Linux only, elsewhere nothing happens."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_since_reset() -> int:
    """Return the process's peak memory in bytes."""
    with suppress(OSError):
        status = Path("/proc/self/status").read_text().splitlines()
        (kilobytes,) = [line.split()[1] for line in status if line.startswith("VmHWM")]
        return int(kilobytes) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llm", help="as LLMBOSampler(llm=...)")
    parser.add_argument("--device")
    parser.add_argument("--configurations", type=int, default=960, help="of the grid")
    parser.add_argument(
        "--continuous", type=int, default=96, help="number in the continuous space"
    )
    parser.add_argument("--naive", type=int, default=960, help="most to read naively")
    parser.add_argument("--repeats", type=int, default=3, help="trie reads, for a median")
    parser.add_argument("--memory-mb", type=int, default=MEMORY_BYTES // 2**20)
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--save", type=Path, help="where to write the JSON")
    parser.add_argument("--report", action="store_true", help="print the kept results and stop")
    options = parser.parse_args()
    if options.report:
        report(RESULTS)
        return
    of_commit = commit()  # first, as the tree may change
    llm = load_model(resolve_source(options.llm), device=options.device)
    spaces = {"grid": grid(options.configurations)}
    if options.continuous:
        spaces["continuous"] = continuous(options.continuous, seed=0)
    results = {}
    for name, (space, rows) in spaces.items():
        results[name] = measure(llm, texts_of(llm, space, rows), options)
        if not options.json:
            show(f"{name} space", results[name])
    result = {
        **results["grid"],
        "continuous": results.get("continuous"),
        "llm": llm.source.location if llm.source.kind == "hub" else Path(llm.source.location).name,
        "dtype": str(llm.dtype),
        "device": name_of(llm.device),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "versions": versions(PACKAGES),
        "commit": of_commit,
        "date": time.strftime("%Y-%m-%d"),
    }
    text = json.dumps(result, indent=2)
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text(text + "\n")
    if options.json:
        print(text)


if __name__ == "__main__":
    main()
