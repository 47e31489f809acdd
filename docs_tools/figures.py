"""Draw the figures of docs/method.md with the package's own code.

python -m docs_tools.figures    # writes docs/figures/*.svg; half a minute on one core
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import re
from typing import Any

import matplotlib
import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from benchmarks.lora_table import tables
from benchmarks.lora_table.objective import TableObjective
from benchmarks.race import lora
from optuna_llmbo import LLMBOSampler
from optuna_llmbo.embedding.trie import chunks
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.space.prior import Prior
from optuna_llmbo.space.prompt import Prompt
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.history import read_history
from optuna_llmbo.suggestion.fitted import FittedModel


matplotlib.use("agg")
from matplotlib import pyplot  # noqa: E402  (after the choice of what draws)


FOLDER = Path(__file__).parents[1] / "docs" / "figures"
TABLE = tables.FOLDER / "cpu.parquet"
RATE = FloatDistribution(1e-5, 3e-2, log=True)
BLUE, ORANGE, GREY = "tab:blue", "tab:orange", "0.55"


def study_of_rates(n_trials: int = 9) -> tuple[optuna.Study, LLMBOSampler]:
    """Run a study of the learning rate alone, with default values for the others.

    Its objective is the surrogate of the LoRA table on 10% of the data.
    """
    value, default = lora.surrogate("lora-10").value, lora.DEFAULT
    sampler = LLMBOSampler(seed=0, prior={"learning_rate": (1e-4, 1e-3)})
    study = optuna.create_study(sampler=sampler)
    study.optimize(
        lambda trial: value({**default, "learning_rate": suggest_rate(trial)}), n_trials=n_trials
    )
    return study, sampler


def suggest_rate(trial: optuna.Trial) -> float:
    """Suggest a trial's learning rate."""
    return trial.suggest_float("learning_rate", RATE.low, RATE.high, log=True)


def model_of(study: optuna.Study, sampler: LLMBOSampler) -> FittedModel:
    """The model that chooses the study's next trial."""
    return sampler.ask(study, lambda model, candidates: model)


def posterior() -> Any:
    """Draw what the surrogate believes, its acquisition, and what is tried next."""
    study, sampler = study_of_rates()
    model = model_of(study, sampler)
    points = np.linspace(0, 1, 401)[:, None]
    middle, high, low = -model.intervals(points)[:, :, 0]
    rates = [
        configuration["learning_rate"] for configuration in model.known.space.from_unit(points)
    ]
    terms = model.terms(points)

    figure, (above, below) = _figure(2, (7, 5), sharex=True, height_ratios=(3, 2))
    above.fill_between(rates, low, high, color=BLUE, alpha=0.2, lw=0, label="95% interval")
    above.plot(rates, middle, color=BLUE, label="the surrogate's mean")
    tried = [(trial.params["learning_rate"], trial.value) for trial in study.trials]
    above.plot(*zip(*tried, strict=True), "o", color="black", label="trials")
    below.plot(rates, terms.improvement, color=GREY, label="log noisy expected improvement")
    below.plot(rates, terms.score, color=ORANGE, label="and the prior")
    following = suggest_rate(study.ask())
    for panel in (above, below):
        panel.axvline(following, color=ORANGE, ls=":", label="next trial")
        panel.legend(fontsize="small")
    above.set(ylabel="validation loss, nats a token", xscale="log")
    below.set(xlabel="learning rate", ylabel="worth trying, log")
    below.set_ylim(terms.score.max() - 12, terms.score.max() + 1)
    return figure


def prior() -> Any:
    """Draw what a typical range weighs, by the number of trials and how far it is trusted."""
    space = SearchSpace({"learning_rate": RATE})
    knowledge = load_knowledge("auto").relevant(["learning_rate", "rank", "lora_alpha"])
    typical = knowledge.typical_range("learning_rate")
    assert typical is not None
    points = np.linspace(0, 1, 401)[:, None]
    density = Prior(space, {"learning_rate": typical}).log_density(points)
    rates = [configuration["learning_rate"] for configuration in space.from_unit(points)]
    figure, (panel,) = _figure(1, (7, 3))
    panel.axvspan(*typical, color=GREY, alpha=0.2, lw=0, label="typical")
    for n, trust, color, strength in (
        (6, 0.9, BLUE, 1.0),
        (20, 0.9, BLUE, 0.4),
        (6, 0.1, ORANGE, 1.0),
    ):
        label = f"after {n} trials, trust {trust}"
        panel.plot(rates, np.exp(trust * density / n), color=color, alpha=strength, label=label)
    panel.set(xscale="log", xlabel="learning rate", ylabel="weight of the improvement", ylim=0)
    panel.legend(fontsize="small")
    return figure


def pruned() -> Any:
    """Draw the value that a pruned trial counts as."""
    objective = TableObjective(tables.read(TABLE))
    study = optuna.create_study(
        sampler=LLMBOSampler(seed=0), pruner=optuna.pruners.MedianPruner(n_startup_trials=4)
    )
    study.optimize(objective, n_trials=12)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    stopped = study.get_trials(states=(TrialState.PRUNED,))
    stopped = [trial for trial in stopped if trial.last_step == 25][:1] or stopped[:1]
    distributions = {name: d for name, d in stopped[0].distributions.items() if not d.single()}
    history = read_history(
        [*complete, *stopped], study.directions, SearchSpace(distributions), current=-1
    )
    figure, (panel,) = _figure(1, (7, 3.2))
    for trial in complete:
        label = "complete trials" if trial is complete[0] else None
        panel.plot(*_curve(trial), "-", color=GREY, lw=1, label=label)
    steps, values = _curve(stopped[0])
    panel.plot(steps, values, "o-", color=BLUE, label="a pruned trial")
    ends = [steps[-1], 100], [values[-1], -history.targets[-1, 0]]
    panel.plot(*ends, "--", color=BLUE, label="what it counts as")
    panel.plot(100, ends[1][1], "o", color=BLUE, mfc="white")
    panel.set(
        xlabel="share of the training, %", ylabel="validation loss", xticks=(25, 50, 75, 100)
    )
    panel.legend(fontsize="small")
    return figure


def _curve(trial: optuna.trial.FrozenTrial) -> tuple[list[int], list[float]]:
    steps = sorted(trial.intermediate_values)
    return steps, [trial.intermediate_values[step] for step in steps]


def configurations() -> list[dict[str, Any]]:
    """Return the configurations whose texts the trie figure shows."""
    rows = [(8, 0.0, 2e-4), (8, 0.0, 1e-3), (8, 0.1, 1e-3), (64, 0.1, 2e-4)]
    return [dict(zip(("rank", "lora_dropout", "learning_rate"), row, strict=True)) for row in rows]


def words(text: str) -> list[str]:
    """Cut a text into words, in place of a tokenizer's tokens."""
    return re.findall(r"\S+", text)


def trie() -> Any:
    """Draw the lines of some configurations, each shared prefix once."""
    space = SearchSpace(
        {
            "rank": IntDistribution(1, 256, log=True),
            "lora_dropout": FloatDistribution(0.0, 0.3, step=0.05),
            "learning_rate": RATE,
        }
    )
    prompt = Prompt(space, load_knowledge(None))
    texts = ["".join(prompt.assignment(one)) for one in configurations()]
    vocabulary = sorted({word for text in texts for word in words(text)})
    sequences = sorted({tuple(vocabulary.index(word) for word in words(text)) for text in texts})
    (chunk,) = chunks(sequences, limit=1024)
    rows = _rows(chunk.parents, chunk.ends)
    figure, (panel,) = _figure(1, (9, 2.6))
    for node, parent in enumerate(chunk.parents):
        x, y = chunk.depths[node] + 1, rows[node]
        before = (chunk.depths[parent] + 1, rows[parent]) if parent >= 0 else (0, np.mean(rows))
        panel.plot([before[0], x], [before[1], y], color=GREY, lw=1, zorder=0)
        _box(panel, x, y, vocabulary[chunk.token_ids[node]], "#dbe9f6")
    _box(panel, 0, float(np.mean(rows)), "the passage", "0.85")
    last = max(chunk.depths) + 2
    for end in chunk.ends:
        panel.plot([chunk.depths[end] + 1, last], [rows[end]] * 2, color=GREY, lw=1, zorder=0)
        _box(panel, last, rows[end], "token", "#fde0c5")
    n_all = sum(map(len, sequences))
    panel.set_title(
        f"{len(sequences)} configurations: {n_all} words one by one, "
        f"{len(chunk.token_ids)} in the trie",
        fontsize="small",
    )
    panel.set(xlim=(-0.6, last + 0.6), ylim=(-0.6, len(sequences) - 0.4))
    panel.axis("off")
    return figure


def _rows(parents: list[int], ends: list[int]) -> list[float]:
    """Compute heights of a trie's nodes: leaves in a column, parents centred on their leaves."""
    leaves: dict[int, list[int]] = {node: [] for node in range(len(parents))}
    for row, end in enumerate(reversed(ends)):
        node = end
        while node >= 0:
            leaves[node].append(row)
            node = parents[node]
    return [float(np.mean(rows)) for rows in leaves.values()]


def _box(panel: Any, x: float, y: float, text: str, color: str) -> None:
    box = {"boxstyle": "round", "facecolor": color, "edgecolor": "none"}
    panel.text(x, y, text, ha="center", va="center", fontsize="x-small", bbox=box)


def _figure(rows: int, size: tuple[float, float], **options: Any) -> tuple[Any, Any]:
    ratios = options.pop("height_ratios", None)
    figure, panels = pyplot.subplots(
        rows, 1, figsize=size, squeeze=False, height_ratios=ratios, layout="constrained", **options
    )
    return figure, panels[:, 0]


FIGURES: dict[str, Callable[[], Any]] = {
    "posterior": posterior,
    "prior": prior,
    "pruned": pruned,
    "trie": trie,
}


def draw(folder: Path) -> list[Path]:
    """Draw all figures.

    Returns:
        The files drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    paths = []
    for name, make in FIGURES.items():
        matplotlib.rcParams["svg.hashsalt"] = name  # reproducible files
        figure = make()
        paths.append(folder / f"{name}.svg")
        figure.savefig(paths[-1], metadata={"Date": None}, facecolor="white")
        pyplot.close(figure)
    return paths


if __name__ == "__main__":
    print(*draw(FOLDER), sep="\n")
