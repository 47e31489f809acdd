"""The objective of a study on TRL's own YAML: its trainer, its data, its defaults."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import os
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import FloatDistribution

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.language_model import model_folder
from optuna_llmbo.embedding.language_model import quiet_transformers
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora.base_model import as_base
from optuna_llmbo.lora.hyperparameters import ALIASES
from optuna_llmbo.lora.hyperparameters import role_of
from optuna_llmbo.lora.layers import target_modules
from optuna_llmbo.lora.model_card import Base
from optuna_llmbo.lora.probe import ask_default
from optuna_llmbo.lora.recipe import DEFAULT
from optuna_llmbo.lora.recipe import default_space
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.space import Space
from optuna_llmbo.lora.space_file import read_space
from optuna_llmbo.study.training_progress import TrainingProgress
from optuna_llmbo.trainer.configuration import Configuration
from optuna_llmbo.trainer.export import changed_arguments
from optuna_llmbo.trainer.job import TrainerJob
from optuna_llmbo.trainer.objective import TrainerObjective
from optuna_llmbo.trainer.options import TrainerOptions
from optuna_llmbo.trainer.prepare import prepare
from optuna_llmbo.trainer.prepare import PreparedTrainer
from optuna_llmbo.trainer.promotable import PromotableTrainer
from optuna_llmbo.trainer.rows import dataset_of
from optuna_llmbo.trainer.rows import RowSource
from optuna_llmbo.trainer.trl_file import data_of
from optuna_llmbo.trainer.trl_file import DPO
from optuna_llmbo.trainer.trl_file import read_trl_file
from optuna_llmbo.trainer.trl_file import SFT
from optuna_llmbo.trainer.trl_file import TRLFile
from optuna_llmbo.trainer.trl_import import trl
from optuna_llmbo.trainer.trl_values import argument
from optuna_llmbo.trainer.trl_values import arguments_of
from optuna_llmbo.trainer.trl_values import check_expressible
from optuna_llmbo.trainer.trl_values import check_searched
from optuna_llmbo.trainer.trl_values import values_in


_OF_A_TRIAL: dict[str, Any] = {
    "save_strategy": "no",
    "eval_strategy": "no",  # the objective's callback has it evaluated
    "load_best_model_at_end": False,
    "push_to_hub": False,
    "report_to": "none",
    "disable_tqdm": True,
    "logging_nan_inf_filter": False,  # what is not finite is to be seen
}
_SETS_ASIDE = {
    "optimizer": ("optim",),
    "schedule": ("lr_scheduler_type",),
    "epochs": ("max_steps", "num_train_epochs"),
}
"""What the file says and a recipe cannot, by the role whose search replaces it."""


class TRLObjective(TrainerObjective):
    """Search around a file of `trl sft --config` or `trl dpo --config`.

    The file is read by TRL's own parser, and trained by its own SFTTrainer or DPOTrainer. What the
    space names is searched; everything else is the file's: model, data, packing, masks of the
    loss, gradient checkpointing, quantization, attention, layers of the adapter, optimizer,
    schedule. The file's own values are the default configuration, the control. The base model is
    loaded once and shared by the trials. `model_name_or_path` may also be "embedded", a GGUF file,
    or the name of an installed package with a model.

    Not the file's are, in trials: where output goes, checkpoints and uploads (none), trackers
    (none), and when the model is evaluated (at `reports` evenly spaced points). A warm-up in steps
    keeps its share of the whole training, as trials train on a part of the data.

    Names of the space are those of a recipe (`rank`, `alpha_ratio`, `learning_rate`, ...) or any
    other argument of TRL (`beta`, `max_grad_norm`, `neftune_noise_alpha`, ...). Without a space
    the five of `lora.default_space` are searched; for DPO beta too, and no dropout, which DPO
    switches off unless the file has `disable_dropout: false`.

    For DPO, the loss on validation rows is that with the file's beta in all trials, though each is
    trained with its own: the loss is smaller with a larger beta, whatever has been learned.

    Args:
        path: the file, or what `read_trl_file` made of it.
        task: "sft" or "dpo"; None: as the file's keys or its name say.
        space: distributions by name, a function, or the path of a TOML file; None: as above.
        validation: as `TrainerObjective` takes it; None: the split that the file names as
            `dataset_test_split` ("test"), if the data have it; else 10% of the training split, at
            most 128.
        test: as `validation`, split off the training split first; None: no test set.
        proxy: the part of the training split that trials train on.
        proxy_by: how it is drawn.
        metric: what an evaluation of TRL returns, such as "eval_loss", "eval_mean_token_accuracy"
            or "eval_rewards/accuracies".
        direction: "minimize" or "maximize" it; None: as its name says, for the metrics of TRL.
        reports: evaluations per trial.
        folder: where the best adapters are kept; None: nowhere.
        keep: number of adapters to keep in `folder`.
        seed: seed of the splits and the trainings; None: the file's.
        trial_timeout: most seconds that a trial may take.
        progress: called after every step.

    Raises:
        InputError: if the file cannot be read, or is none of TRL's.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | TRLFile,
        space: Space | None = None,
        *,
        task: str | None = None,
        validation: RowSource | float | None = None,
        test: RowSource | float | None = None,
        proxy: float = TrainerOptions.proxy,
        proxy_by: str = TrainerOptions.proxy_by,
        metric: str = TrainerOptions.metric,
        direction: str | None = None,
        reports: int = TrainerOptions.reports,
        folder: str | os.PathLike[str] | None = None,
        keep: int = TrainerOptions.keep,
        seed: int | None = None,
        trial_timeout: float | None = None,
        progress: Callable[[TrainingProgress], None] | None = None,
    ) -> None:
        self.file = path if isinstance(path, TRLFile) else read_trl_file(path, task)
        parsed = self.file.parsed()
        if parsed.training.load_best_model_at_end:
            warn_once(
                f"{str(self.file.path)!r} has load_best_model_at_end: in trials the last "
                "evaluation counts."
            )
        super().__init__(
            self._make_trainer,
            space,
            train=self._train_split,
            validation=validation,
            test=test,
            proxy=proxy,
            proxy_by=proxy_by,
            model=self._load_model,
            metric=metric,
            direction=direction or direction_of(metric),
            method="preference" if self.file.task == DPO else "lora",
            reports=reports,
            at_once=parsed.training.per_device_train_batch_size,
            folder=folder,
            keep=keep,
            seed=parsed.training.seed if seed is None else seed,
            settings={"task": self.file.task, "file": self.file.settings},
            trial_timeout=trial_timeout,
            progress=progress,
        )
        self._splits: tuple[Any, Any | None] | None = None

    def promotable(
        self, folder: Path, tell: Callable[[str], None] | None = None
    ) -> PromotableTrainer:
        """The objective as `promote` needs it, see `TrainerObjective.promotable`."""
        revision = self.file.parsed().model.model_revision
        reason = (
            f"{str(self.file.path)!r} has model_revision: {revision}, and only a model's main "
            "revision is found again by its name. Use the adapter, or name a folder with that one."
        )
        is_main = revision in (None, "main")
        return PromotableTrainer(self, folder, tell, cannot_merge="" if is_main else reason)

    def yaml_of(self, configuration: Configuration) -> str:
        """The file with the values of a configuration, for a training on all of its data.

        Raises:
            InputError: naming the hyperparameter that TRL's files cannot express.
        """
        n_examples = len(self.prepare().rows.pool)
        values = changed_arguments(self.file, configuration, self.fingerprint, n_examples)
        return self.file.with_values(values)

    # --- what the file says

    def _load(self) -> PreparedTrainer:
        self.file.set_environment()
        train, test = self._data()
        n_all = len(train)
        parsed = self.file.parsed()
        values = values_in(self.file, n_all, self._usual_layers())
        space = self.options.space
        searched, roles = _names(space, self.file), set()
        if searched is not None:
            check_searched(searched, parsed)
            roles = {role_of(name) for name in searched if name in ALIASES}
            self._check_dropout(roles, parsed)
        aside = {name for role in roles for name in _SETS_ASIDE.get(role, ())}
        extra = {name: value for name, value in values.extra.items() if name not in aside}
        for name in searched or {}:
            if name not in ALIASES:
                extra.setdefault(name, argument(name, parsed))
        validation = self.options.validation
        if validation is None and test is not None:
            validation = dataset_of(test)
        self.options = dataclasses.replace(
            self.options, defaults=values.defaults, extra=extra, validation=validation
        )
        prepared = prepare(self.options, self._default_space)
        for recipe in prepared.space.lora.admitted:
            check_expressible(recipe)
        names = {
            "objective": f"TRL's {self.file.task}",
            "model": Path(str(parsed.model.model_name_or_path)).name,
            "train": str(parsed.script.dataset_name or "several data sets"),
        }
        fingerprint = {**prepared.fingerprint, **names}
        return dataclasses.replace(
            prepared, fingerprint=fingerprint, base_card=self._base_card(prepared)
        )

    def _base_card(self, prepared: PreparedTrainer) -> Base:
        named = self.file.parsed().model
        model, tokenizer = prepared.base.there
        source = resolve_source(named.model_name_or_path)
        loaded = LanguageModel(model, tokenizer, source, model.device, model.dtype)
        bits = "4bit" if named.load_in_4bit else "8bit" if named.load_in_8bit else None
        return as_base(loaded, bits)

    def _default_space(self, n_examples: int) -> Mapping[str, BaseDistribution]:
        space = default_space(n_examples)
        if self.file.task == SFT:
            return space
        if self.file.parsed().training.disable_dropout:
            del space["lora_dropout"]
        return {**space, "beta": FloatDistribution(0.01, 1.0, log=True)}

    def _check_dropout(self, roles: set[str], parsed: Any) -> None:
        is_off = self.file.task == DPO and parsed.training.disable_dropout
        if is_off and "lora_dropout" in roles:
            raise InputError(
                "the space has a dropout, which DPO switches off for adapters too: leave it out, "
                f"or set disable_dropout: false in {str(self.file.path)!r}."
            )

    def _usual_layers(self) -> str | None:
        """The layers that peft gives an adapter where none are named; None if it knows none."""
        from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as usual
        import transformers

        with quiet_transformers():
            config = transformers.AutoConfig.from_pretrained(self._model_place(), **self._code())
        names = usual.get(config.model_type)
        return None if names is None else ",".join(names)

    def _model_place(self) -> str:
        named = self.file.parsed().model.model_name_or_path
        if not named:
            raise InputError(f"{str(self.file.path)!r} names no model: give model_name_or_path.")
        return model_folder(resolve_source(named))

    def _code(self) -> dict[str, Any]:
        parsed = self.file.parsed()
        return {
            "revision": parsed.model.model_revision,
            "trust_remote_code": parsed.training.trust_remote_code,
        }

    def _load_model(self) -> tuple[Any, Any]:
        """The model as TRL's scripts load it, and its tokenizer."""
        import transformers
        from trl.trainer.utils import create_model_from_path

        parsed = self.file.parsed()
        place = self._model_place()
        settings = {
            **self._code(),
            "attn_implementation": parsed.model.attn_implementation,
            "dtype": parsed.model.dtype,
            **(parsed.training.model_init_kwargs or {}),
        }
        quantization = trl().get_quantization_config(parsed.model)
        if quantization is not None:
            settings["quantization_config"] = quantization
        try:
            with quiet_transformers():
                model = create_model_from_path(place, **settings)
                tokenizer = transformers.AutoTokenizer.from_pretrained(place, **self._code())
        except (OSError, ValueError, ImportError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(
                f"cannot load the model {parsed.model.model_name_or_path!r} that "
                f"{str(self.file.path)!r} names: {reason}"
            ) from error
        return model.eval().requires_grad_(False), tokenizer

    def _data(self) -> tuple[Any, Any | None]:
        if self._splits is None:
            self._splits = data_of(self.file)
        return self._splits

    def _train_split(self) -> Any:
        return self._data()[0]

    # --- a trial

    def _arguments(
        self, configuration: Configuration, n_examples: int, model: Any
    ) -> dict[str, Any]:
        return arguments_of(
            configuration,
            self.file,
            LoRARecipe.from_params(self.options.defaults or {}),
            n_examples=n_examples,
            at_once=self.options.at_once,
            layers=lambda named: target_modules(model, named),
        )

    def _make_trainer(self, job: TrainerJob) -> Any:
        library = trl()
        configuration = Configuration(job.recipe, job.extra)
        values = {
            **self._arguments(configuration, len(job.train), job.model),
            **_OF_A_TRIAL,
            "output_dir": job.folder,
            "seed": job.seed,
        }
        parsed = self.file.parsed(values)
        parsed.training.include_num_input_tokens_seen = "non_padding"  # no word of TRL's parser
        arguments: dict[str, Any] = {
            "model": job.model,
            "args": parsed.training,
            "train_dataset": job.train,
            "eval_dataset": job.validation,
            "processing_class": job.tokenizer,
            "peft_config": library.get_peft_config(parsed.model),
        }
        if self.file.task == SFT:
            return library.SFTTrainer(**arguments)
        return _with_one_beta(library.DPOTrainer, self.file.parsed().training.beta)(**arguments)


def direction_of(metric: str) -> str:
    """Whether a metric of TRL's evaluations is to be minimized or maximized.

    Raises:
        InputError: if its name does not say it.
    """
    if metric.endswith("loss"):
        return "minimize"
    if "accurac" in metric or metric.endswith("margins"):
        return "maximize"
    raise InputError(
        f"metric={metric!r}: is it to be minimized or maximized? Say it with direction= (on the "
        f"command line {metric}:minimize or {metric}:maximize)."
    )


def _names(space: Space | None, file: TRLFile) -> Mapping[str, Any] | None:
    """What a space names; None if there is none. A function is asked with the usual defaults."""
    if space is None:
        return None
    if isinstance(space, (str, os.PathLike)):
        return read_space(space)
    if callable(space):
        probe, made = ask_default(space, DEFAULT)
        return {**probe.distributions, **made}
    return space


def _with_one_beta(trainer: Any, beta: float) -> Any:
    """TRL's DPOTrainer, which evaluates with the same beta whatever it trains with."""

    class DPOTrainer(trainer):
        beta: float

        def evaluate(self, *args: Any, **kwargs: Any) -> Any:
            own, self.beta = self.beta, beta
            try:
                return super().evaluate(*args, **kwargs)
            finally:
                self.beta = own

    return DPOTrainer
