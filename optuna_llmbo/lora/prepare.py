"""Load and check everything once, before the first trial of an objective."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
import hashlib
import os
from typing import Any

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import tell_once
from optuna_llmbo.lora import distributed
from optuna_llmbo.lora import examples
from optuna_llmbo.lora import proxy as proxies
from optuna_llmbo.lora import space as spaces
from optuna_llmbo.lora import splits
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.adapter import largest_rank
from optuna_llmbo.lora.base_model import as_base
from optuna_llmbo.lora.base_model import check_base_loss
from optuna_llmbo.lora.base_model import check_tokens
from optuna_llmbo.lora.base_model import load_base
from optuna_llmbo.lora.chat_template import read_template
from optuna_llmbo.lora.chat_template import TEMPLATE_DAY
from optuna_llmbo.lora.chat_template import template_of
from optuna_llmbo.lora.chat_template import writes_the_date
from optuna_llmbo.lora.checkpoint import check_writable
from optuna_llmbo.lora.columns import Kind
from optuna_llmbo.lora.evaluate import device_of
from optuna_llmbo.lora.evaluate import validation_loss
from optuna_llmbo.lora.measuring import try_out
from optuna_llmbo.lora.memory import MicroBatch
from optuna_llmbo.lora.metrics import check_all
from optuna_llmbo.lora.metrics import from_name
from optuna_llmbo.lora.metrics import Loss
from optuna_llmbo.lora.metrics import Measure
from optuna_llmbo.lora.metrics import MultipleChoice
from optuna_llmbo.lora.metrics.measure import TextMeasure
from optuna_llmbo.lora.model_card import Base
from optuna_llmbo.lora.options import ObjectiveOptions
from optuna_llmbo.lora.preflight import preflight
from optuna_llmbo.lora.recipe import DEFAULT
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.records import ALL_TURNS
from optuna_llmbo.lora.records import DROP
from optuna_llmbo.lora.records import RIGHT
from optuna_llmbo.lora.space import CheckedSpace
from optuna_llmbo.lora.table import source_name
from optuna_llmbo.lora.tokens import Example


ONLY_NAMES = ("model", "train", "format")
"""Entries of a fingerprint that name what hashes identify: files may be moved and renamed, and
columns too."""


@dataclass(frozen=True)
class Prepared:
    """A loaded model and checked data: everything a trial needs besides its hyperparameters."""

    model: Any
    """The frozen base model. A trial changes it in place and restores it."""
    tokenizer: Any
    base: Base
    """The base model, as saved adapters name it."""
    pool: tuple[Example, ...]
    """All training examples; the proxy of k examples is the first k."""
    train: tuple[Example, ...]
    """The proxy, which every trial trains on."""
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    """Read by no trial; empty if there is no test set."""
    targets: tuple[Measure, ...]
    """Metrics that the search optimizes, one per direction of the study."""
    space: CheckedSpace
    base_loss: float
    """Validation loss of the base model, nats per response token."""
    fingerprint: dict[str, Any]
    """Everything that determines a trial's result besides its hyperparameters."""
    micro_batch: MicroBatch
    """Shared by all trials, so that the size that fits is found once."""
    best_of: int | None = None
    """Number of evenly spaced reports of which the best one counts; None: the last one does."""

    @property
    def is_on_loss(self) -> bool:
        """Whether the search optimizes the validation loss alone."""
        return [type(target) for target in self.targets] == [Loss]

    @property
    def fraction(self) -> float:
        """Fraction of the training examples in the proxy, in (0, 1]."""
        return len(self.train) / len(self.pool)

    def metric_on(self, examples: Sequence[Example]) -> float:
        """The search's only metric for the model in its current state."""
        if self.is_on_loss:
            return self.loss_on(examples)
        (target,) = self.targets
        return target(self.model, self.tokenizer, examples)

    def loss_on(self, examples: Sequence[Example]) -> float:
        """Current loss of the model, nats per response token."""
        return _loss(self.model, examples, self.micro_batch)


def prepare(options: ObjectiveOptions) -> Prepared:
    """Load and check everything.

    Examples that are too long are left out first, then test and validation examples are split
    off, then the proxy is drawn from the remaining ones.

    Raises:
        InputError: for every mistake in the options, the data or the search space.
    """
    options.check()
    if options.folder is not None:
        check_writable(options.folder)
    read = examples.read(options)
    loaded = load_base(
        options.model,
        device=options.device,
        dtype=options.dtype,
        max_length=options.max_length,
        quantization=options.quantization,
        gradient_checkpointing=options.gradient_checkpointing,
    )
    _set_template(loaded.tokenizer, read, options)
    usable = read.encode(loaded.tokenizer, options)
    for some in usable.values():
        check_tokens(loaded, some)
    tell_once(str(read))
    parts = splits.hold_out(usable, options.validation, options.test, options.seed)
    train, validation, test = (parts[name] for name in splits.PARTS)
    pool = _in_order(options, loaded.model, train)
    proxy = pool[: proxies.count(options.proxy, len(pool))]
    targets = _targets(options.metric)
    if options.load_best_model_at_end and len(targets) > 1:
        raise InputError(
            f"load_best_model_at_end with {len(targets)} metrics: trials on several report "
            "nothing, and so have no best report. Leave one of the two out."
        )
    _check_answers(read.columns.kind, targets, options)
    check_all(targets, loaded.model, loaded.tokenizer, validation)
    defaults = LoRARecipe.from_params(options.fixed)
    most = largest_rank(loaded.model, defaults)
    space = spaces.check(
        options.space, n_examples=len(proxy), defaults=defaults, largest_rank=most
    )
    preflight(loaded.model, space.admitted, proxy)
    micro_batch = MicroBatch(options.micro_batch_size)
    base_loss = _loss(loaded.model, validation, micro_batch)
    check_base_loss(loaded, base_loss)
    functions = options.extra_metrics or {}
    with_what = (loaded.model, loaded.tokenizer, validation)
    try_out(targets, functions, *with_what, defaults, seed=options.seed)
    record = _fingerprint(options, loaded, proxy, validation, test) | _differing(defaults)
    if not read.is_plain_pairs:
        record["format"] = str(read.columns)
    return Prepared(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        base=as_base(loaded, options.quantization),
        pool=pool,
        train=proxy,
        validation=tuple(validation),
        test=tuple(test),
        targets=targets,
        space=space,
        base_loss=base_loss,
        fingerprint=record,
        micro_batch=micro_batch,
        best_of=options.reports if options.load_best_model_at_end else None,
    )


def _set_template(tokenizer: Any, read: examples.Data, options: ObjectiveOptions) -> None:
    """Give the tokenizer the chat template that turns are written with, so that adapters are saved
    with it."""
    if options.chat_template is not None:
        tokenizer.chat_template = read_template(options.chat_template)
    elif read.has_turns and not tokenizer.chat_template:
        tokenizer.chat_template = template_of(tokenizer)


def _check_answers(kind: Kind, targets: Sequence[Measure], options: ObjectiveOptions) -> None:
    """Check that metrics which read answers have whole questions to ask."""
    reading = [one.name for one in targets if isinstance(one, (TextMeasure, MultipleChoice))]
    if not reading:
        return
    if kind is Kind.TEXT:
        raise InputError(
            f"metric={reading[0]!r} compares answers, and the data are plain texts, which ask "
            "nothing: choose the loss, or data with prompts."
        )
    if options.truncation == RIGHT:
        raise InputError(
            f"metric={reading[0]!r} compares answers to whole questions, and "
            "truncation='right' may cut these: choose 'left' or 'drop'."
        )


def identity(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a fingerprint that have to agree for results to be comparable."""
    return {name: value for name, value in fingerprint.items() if name not in ONLY_NAMES}


def _targets(metric: str | Measure | Sequence[str | Measure]) -> tuple[Measure, ...]:
    several: Sequence[Any] = metric if isinstance(metric, (list, tuple)) else [metric]
    if not several:
        raise InputError("metric=[]: expected at least one metric to search on.")
    targets = tuple(from_name(one) if isinstance(one, str) else one for one in several)
    for target in targets:
        if not all(hasattr(target, name) for name in ("name", "direction", "check")):
            raise InputError(
                f"metric={target!r}: expected a name or a metric of optuna_llmbo.lora.metrics; of "
                "a function of your own make metrics.Custom(name, direction, function)."
            )
    return targets


def _loss(model: Any, examples: Sequence[Example], micro_batch: MicroBatch) -> float:
    """Validation loss; in distributed training each process reads its share."""
    own = distributed.share(examples)
    loss = micro_batch.fit(
        lambda size: validation_loss(model, own, batch_size=size) if own else 0.0
    )
    weight = sum(example.n_response for example in own)
    return distributed.mean(loss, weight, device=device_of(model))


def _in_order(
    options: ObjectiveOptions, model: Any, train: Sequence[Example]
) -> tuple[Example, ...]:
    order = proxies.order(
        train, options.proxy_by, options.seed, model=model, batch_size=options.micro_batch_size
    )
    return tuple(train[i] for i in order)


def _fingerprint(
    options: ObjectiveOptions,
    loaded: LanguageModel,
    train: Sequence[Example],
    validation: Sequence[Example],
    test: Sequence[Example],
) -> dict[str, Any]:
    source = loaded.source
    is_hub = source.kind == "hub"
    more = _unusual(options)
    if writes_the_date(loaded.tokenizer):
        more["template_date"] = TEMPLATE_DAY.date().isoformat()
    if options.chat_template is not None:
        template = loaded.tokenizer.chat_template.encode()
        more["chat_template"] = hashlib.sha256(template).hexdigest()[:16]
    if test:
        more |= {"test_examples": len(test), "test_hash": tokens.digest(test)}
    return more | {
        "model": source.location if is_hub else os.path.basename(os.path.abspath(source.location)),
        "weights": loaded.fingerprint[:16],
        "train": source_name(options.train),
        "train_examples": len(train),
        "train_hash": tokens.digest(train),
        "validation_examples": len(validation),
        "validation_hash": tokens.digest(validation),
        "proxy": options.proxy,
        "metric": "+".join(target.name for target in _targets(options.metric)),
        "max_length": options.max_length,
        "seed": options.seed,
        "dtype": str(loaded.dtype),
    }


def _unusual(options: ObjectiveOptions) -> dict[str, Any]:
    """Options that differ from the usual ones.

    The others are left out, so that fingerprints of earlier studies still match.
    """
    usual = {
        "quantization": None,
        "proxy_by": proxies.RANDOM,
        "train_on": ALL_TURNS,
        "truncation": DROP,
    }
    given = {name: getattr(options, name) for name in usual}
    more = {name: value for name, value in given.items() if value != usual[name]}
    if options.load_best_model_at_end:
        more |= {"load_best_model_at_end": True, "reports": options.reports}
    return more


def _differing(defaults: LoRARecipe) -> dict[str, Any]:
    """Variant, epochs, and every other default that differs from `DEFAULT`.

    The others are left out, so that fingerprints of earlier studies still match.
    """
    usual, ours = asdict(DEFAULT), asdict(defaults)
    own = {name: value for name, value in ours.items() if value != usual[name]}
    about = {"variant": own.pop("variant", "lora"), "epochs": own.pop("epochs", 1)}
    return about | ({"defaults": own} if own else {})
