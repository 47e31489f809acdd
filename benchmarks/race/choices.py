"""Choices by name: chemistry, pipelines, prompts and methods, from published tables.

Most parameters are nominal, and the names of their choices mean something, but for the control
`choices-redoxmers`. The value of a configuration is the published one (see `real_tables`): yields
are negated, accuracies and scores are subtracted from 1, repeats have their mean. Numbers are
searched over the range of the table's levels and have the value of the nearest one, as on the
grids of `real`; cells without a row fail. Where the table is no grid, its rows are one parameter,
a finite list of texts. The best value is the table's lowest, the middle the median over all its
configurations.

Nothing is published as a default: it is the first choice of the table and the middle level.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
import functools
from typing import Any

import numpy as np
import pandas

from benchmarks.race import choice_texts
from benchmarks.race import real_tables
from benchmarks.race.real_rows import averaged
from benchmarks.race.real_rows import looked_up
from benchmarks.race.real_rows import make
from benchmarks.race.real_rows import over
from benchmarks.race.task import Task


@dataclass(frozen=True)
class Grid:
    """A table whose rows are the cells of a grid."""

    table: str
    sentence: str
    names: tuple[str, ...]
    """Nominal parameters, as the columns are called."""
    value: str
    """Column of the value."""
    numbers: Mapping[str, str] = field(default_factory=dict)
    """Numeric parameters: the column of each."""
    sign: float = -1.0
    """What the value is multiplied by, to be minimized."""
    only: str | None = None
    """Column that marks the rows to take; None: all."""


GRIDS = {
    "choices-direct-arylation": Grid(
        "direct-arylation",
        "negative yield in percent of the palladium-catalyzed direct arylation of an imidazole; "
        "concentration in mol/L, temperature in degrees Celsius",
        ("base", "ligand", "solvent"),
        "yield",
        {"concentration": "concentration_M", "temperature": "temperature_C"},
    ),
    "choices-amide-coupling": Grid(
        "amide-coupling",
        "negative yield in percent of the coupling of a carboxylic acid with an aniline to an "
        "amide",
        ("base", "solvent", "activator", "nucleophile"),
        "yield",
    ),
    "choices-methane-coupling": Grid(
        "methane-coupling",
        "negative yield in percent of C2 hydrocarbons in the oxidative coupling of methane; "
        "temperature in degrees Celsius, total flow in mL/min",
        ("catalyst",),
        "C2_yield",
        {
            "temperature": "temperature_C",
            "total_flow": "total_flow_mL_min",
            "argon_fraction": "Ar_fraction",
            "methane_oxygen_ratio": "CH4_O2_ratio",
        },
    ),
    "choices-buchwald-hartwig": Grid(
        "buchwald-hartwig",
        "negative yield in percent of the Buchwald-Hartwig amination of aryl halides in the "
        "presence of an isoxazole additive",
        ("base", "ligand", "aryl_halide", "additive"),
        "yield",
        only="in_usual_3955",
    ),
    "choices-redoxmers": Grid(
        "redoxmers",
        "computed reduction potential of a molecule with four substituents",
        ("r1_label", "r3_label", "r4_label", "r5_label"),
        "ered",
        sign=1.0,
    ),
}

PIPELINE_STEPS = ("imputer", "encoder", "standardizer", "dim_reducer", "estimator")
DATA_SETS = {
    2: "anneal",
    3: "kr-vs-kp",
    7: "audiology",
    9: "autos",
    13: "breast-cancer",
    15: "breast-w",
    27: "colic",
    29: "credit-approval",
    31: "credit-g",
    35: "dermatology",
    37: "diabetes",
    38: "sick",
    40: "sonar",
    42: "soybean",
    50: "tic-tac-toe",
    53: "heart-statlog",
    59: "ionosphere",
    181: "yeast",
    329: "hayes-roth",
    799: "fri_c0_1000_5",
}
"""Names of the data sets of OpenML, by number."""

INSTRUCTIONS = (
    "all_words_from_category",
    "any_words_from_category",
    "ends_with_word",
    "first_alphabetically",
    "homophones",
    "less_letters",
    "more_letters",
    "rhyming_word",
    "word_before",
    "word_not_containing",
)
"""Tasks of LMentry, in the order of the table."""
READER = "vicuna-13b"
"""The language model that follows the prompts."""

DOMAINS = ("law", "math", "medicine", "military")

_AUTOML = tuple(f"choices-automl-{number}" for number in DATA_SETS)
_PROMPTS = tuple(f"choices-prompts-{task.replace('_', '-')}" for task in INSTRUCTIONS)

TUNING = (
    "choices-direct-arylation",
    "choices-amide-coupling",
    "choices-methane-coupling",
    *_AUTOML[:4],
    *_PROMPTS[:4],
)
"""Tasks on which the sampler's constants may be chosen."""

REPORTED = (
    *_AUTOML[4:],
    *_PROMPTS[4:],
    "choices-buchwald-hartwig",
    *(f"choices-rag-{domain}" for domain in DOMAINS),
    "choices-peft",
    "choices-redoxmers",
)
"""Tasks on which results are reported, and nothing was chosen."""

WITH_NUMBERS = tuple(name for name, grid in GRIDS.items() if grid.numbers)
"""Tasks with a numeric parameter; all parameters of the others are nominal."""

TABLES = {
    "automl": ("automl-pipelines", "automl-errors"),
    "prompts": ("lmentry",),
    "rag": ("ragsmith",),
    "peft": ("peft",),
}
"""Tables of the tasks that are not in `GRIDS`, by the second word of their names."""


def tasks() -> dict[str, Callable[[], Task]]:
    """Return a factory for each task."""
    factories: dict[str, Callable[[], Task]] = {"choices-peft": peft}
    for name in GRIDS:
        factories[name] = functools.partial(of_grid, name)
    for name, number in zip(_AUTOML, DATA_SETS, strict=True):
        factories[name] = functools.partial(automl, number)
    for name, instruction in zip(_PROMPTS, INSTRUCTIONS, strict=True):
        factories[name] = functools.partial(prompts, name, instruction)
    for domain in DOMAINS:
        factories[f"choices-rag-{domain}"] = functools.partial(rag, domain)
    return factories


def tables_of(name: str) -> tuple[str, ...]:
    """Return the names of a task's tables."""
    return (GRIDS[name].table,) if name in GRIDS else TABLES[name.split("-")[1]]


def of_grid(name: str) -> Task:
    """Make a task of a grid; the cells that it lacks fail."""
    grid = GRIDS[name]
    table = real_tables.read(grid.table)
    if grid.only is not None:
        table = table[table[grid.only]]
    columns = {**{name: name for name in grid.names}, **grid.numbers}
    parameters = pandas.DataFrame({name: table[column] for name, column in columns.items()})
    return _make(name, grid.sentence, parameters, grid.sign * table[grid.value])


def automl(number: int) -> Task:
    """Make a task of building a pipeline for a data set; the estimator has its settings."""
    pipelines = real_tables.read("automl-pipelines")
    errors = real_tables.read("automl-errors")
    table = pipelines.merge(errors, on="pipeline_id", validate="one_to_one")
    estimators = choice_texts.estimators(table["estimator"], table["hyperparameters"])
    return _make(
        f"choices-automl-{number}",
        "cross-validated balanced error rate of a scikit-learn pipeline for classification on the "
        f"data set {DATA_SETS[number]} (OpenML {number})",
        table.assign(estimator=estimators)[list(PIPELINE_STEPS)],
        table[f"openml_{number}"],
    )


def prompts(name: str, instruction: str) -> Task:
    """Make a task of choosing the wording of an instruction; equal wordings are merged."""
    table = real_tables.read("lmentry")
    table = table[table["task"] == instruction]
    return _make(
        name,
        f"error of the language model {READER} that is prompted with a template for the task "
        f"{instruction.replace('_', ' ')} (LMentry)",
        pandas.DataFrame({"prompt": table["template"]}),
        1.0 - table[f"acc_{READER}"],
    )


def rag(domain: str) -> Task:
    """Make a task of choosing among the pipelines that were run; those that crashed are no choice.

    Args:
        domain: one of `DOMAINS`.
    """
    table = real_tables.read("ragsmith")
    table = table[(table["domain"] == domain) & ~table["failed"]]
    return _make(
        f"choices-rag-{domain}",
        "1 - overall score of a pipeline for retrieval-augmented generation that answers "
        f"questions on {domain}",
        pandas.DataFrame({"pipeline": choice_texts.pipelines(table)}),
        1.0 - table["overall"],
    )


def peft() -> Task:
    """Make the task of choosing among the experiments of a comparison of fine-tuning methods."""
    table = real_tables.read("peft")
    return _make(
        "choices-peft",
        "error on GSM8K of Llama-3.2-3B after parameter-efficient fine-tuning on MetaMathQA",
        pandas.DataFrame({"method": choice_texts.experiments(table)}),
        1.0 - table["test_accuracy"],
    )


def _make(name: str, sentence: str, parameters: pandas.DataFrame, values: pandas.Series) -> Task:
    """Make a task of rows: their parameters, a column each, and their values."""
    listed = {str(column): _levels(parameters[column]) for column in parameters}
    levels = {name: _mixed(some) for name, some in listed.items()}
    rows = averaged(parameters, over(levels), values)
    return make(
        name,
        sentence,
        rows,
        looked_up(rows, levels),
        {column: _default(some) for column, some in listed.items()},
        middle=float(np.median(rows.values)),
    )


def _levels(column: pandas.Series) -> list[Any]:
    """Return what a column holds: names in the order of the table, numbers in their own."""
    found: list[Any] = column.unique().tolist()
    return found if isinstance(found[0], str) else sorted(found)


def _mixed(levels: list[Any]) -> list[Any]:
    """Return names in a random order, the same in every study, and numbers as they are.

    Authors list first what they used first, which is often good; a sampler that takes the first of
    equal candidates would profit.
    """
    if not isinstance(levels[0], str):
        return levels
    order = np.random.default_rng(0).permutation(len(levels))
    return [levels[i] for i in order]


def _default(levels: list[Any]) -> Any:
    return levels[0] if isinstance(levels[0], str) else levels[len(levels) // 2]
