"""The data of an objective: records of each part, and what becomes of them as examples."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import sys
from typing import Any

from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora import data
from optuna_llmbo.lora import proxy as proxies
from optuna_llmbo.lora import splits
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.columns import check_exists
from optuna_llmbo.lora.columns import Columns
from optuna_llmbo.lora.columns import Kind
from optuna_llmbo.lora.options import ObjectiveOptions
from optuna_llmbo.lora.records import DROP
from optuna_llmbo.lora.records import LAST_TURN
from optuna_llmbo.lora.records import Record
from optuna_llmbo.lora.table import open_table
from optuna_llmbo.lora.tokens import Example


@dataclass(frozen=True)
class Data:
    """What was read, before it is tokenized."""

    records: Mapping[str, Sequence[Record]]
    """By part, for parts with a source of their own."""
    columns: Columns
    """Those of the training data."""
    train_on: str
    """See `ObjectiveOptions`."""

    def __str__(self) -> str:
        """What the training data are and what the loss is on, in a line."""
        which = "the last turn" if self.train_on == LAST_TURN else "every turn"
        trained = {
            Kind.TEXT: "all tokens",
            Kind.MESSAGES: f"{which} of the assistant",
            Kind.COMPLETION: "the completions",
            Kind.PLAIN_COMPLETION: "the completions",
            Kind.PAIR: "the responses",
        }[self.columns.kind]
        n = len(self.records[splits.TRAIN])
        return f"The training data are {n:,} {self.columns}; the loss is on {trained}."

    @property
    def has_turns(self) -> bool:
        """Whether a chat template writes the examples."""
        return self.columns.kind in (Kind.MESSAGES, Kind.COMPLETION, Kind.PAIR)

    @property
    def is_plain_pairs(self) -> bool:
        """Whether the training data are prompts and responses and nothing besides."""
        beside = (self.columns.system, self.columns.tools, self.columns.arguments)
        return self.columns.kind is Kind.PAIR and not any(beside)

    def encode(self, tokenizer: Any, options: ObjectiveOptions) -> dict[str, list[Example]]:
        """Tokenize each part; what is too long is left out, or cut, and said.

        Raises:
            InputError: as `tokens.encode`, or if nothing of a part is left.
        """
        limit = options.max_length
        whole = {
            name: tokens.encode(some, tokenizer, sys.maxsize, train_on=self.train_on)
            for name, some in self.records.items()
        }
        usable = {name: _fitting(some, limit, options.truncation) for name, some in whole.items()}
        for name, some in whole.items():
            if not usable[name]:
                longest = max(map(len, some))
                raise InputError(
                    f"all {len(some)} {name} examples are longer than max_length={limit} tokens: "
                    f"raise it. The longest has {longest}."
                )
        _tell_of_long_ones(whole, usable, options)
        return usable


def read(options: ObjectiveOptions) -> Data:
    """Read the training data, and validation and test data if they have their own source.

    Raises:
        InputError: for every mistake in the data.
    """
    columns: dict[str, Any] = {
        "prompt_column": options.prompt_column,
        "response_column": options.response_column,
        "ignore_columns": options.ignore_columns,
    }
    stratum_column = proxies.column_of(options.proxy_by)
    sources = {splits.TRAIN: options.train}
    for name, source in ((splits.VALIDATION, options.validation), (splits.TEST, options.test)):
        if source is not None and not data.is_size(source):
            sources[name] = source
    tables = {name: open_table(source) for name, source in sources.items()}
    there = {name for table in tables.values() for name in table.names}
    for ignored in options.ignore_columns:
        check_exists(sorted(there), ignored)
    parts = {
        name: data.records_of(
            table, **columns, stratum_column=stratum_column if name == splits.TRAIN else None
        )
        for name, table in tables.items()
    }
    splits.check_leaks(parts)
    about = data.columns_of(tables[splits.TRAIN], **columns)
    return Data(parts, about, options.train_on)


def _fitting(examples: Sequence[Example], limit: int, truncation: str) -> list[Example]:
    if truncation == DROP:
        return [example for example in examples if len(example) <= limit]
    cut = (tokens.cut(example, limit, truncation) for example in examples)
    return [example for example in cut if example is not None]


def _tell_of_long_ones(
    whole: Mapping[str, Sequence[Example]],
    usable: Mapping[str, Sequence[Example]],
    options: ObjectiveOptions,
) -> None:
    """Warn of what is left out, and of what is cut."""
    limit = options.max_length
    long = {name: sum(len(e) > limit for e in some) for name, some in whole.items()}
    if not any(long.values()):
        return
    gone = {name: len(some) - len(usable[name]) for name, some in whole.items()}
    cut = {name: long[name] - gone[name] for name in whole}
    longest = max(len(example) for some in whole.values() for example in some)
    said = []
    if any(cut.values()):
        said.append(f"{_counted(cut, whole)} examples are cut at the {options.truncation}")
    if any(gone.values()):
        why = ", as nothing to train on would be left" if options.truncation != DROP else ""
        said.append(f"{_counted(gone, whole)} examples are left out{why}")
    warn_once(
        f"With max_length={limit} tokens {'; '.join(said)}. The longest has {longest}: raise "
        "max_length (--max-length), or shorten them."
    )


def _counted(counts: Mapping[str, int], whole: Mapping[str, Sequence[Example]]) -> str:
    return " and ".join(f"{n} of {len(whole[name])} {name}" for name, n in counts.items() if n)
