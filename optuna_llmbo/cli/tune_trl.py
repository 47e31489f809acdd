"""`optuna-llmbo tune --trl`: a search around TRL's own file."""

from __future__ import annotations

from collections.abc import Mapping
import os
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import typer

from optuna_llmbo.cli import options
from optuna_llmbo.cli.budget import Budget
from optuna_llmbo.cli.terminal import Output
from optuna_llmbo.errors import InputError


if TYPE_CHECKING:
    from optuna_llmbo.trainer.trl_objective import TRLObjective


USED = (
    "trl", "trl_task", "validation", "test", "proxy", "proxy_by", "metric", "space", "reports",
    "folder", "keep", "trials", "timeout", "stop_at_timeout", "trial_timeout", "track", "track_to",
    "storage", "study", "sampler", "pruner", "seed", "llm", "heartbeat", "quiet", "as_json",
)  # fmt: skip
"""Options of `tune` that a search around a file reads; the file decides the others."""
_RECORDED = (
    "trl_task", "validation", "test", "proxy", "proxy_by", "metric", "reports", "seed",
)  # fmt: skip


def check_options(context: typer.Context) -> None:
    """Check that no option is given that the file decides.

    Raises:
        InputError: naming the option.
    """
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in USED and not _is_default(context, name):
            flag = next((one for one in parameter.opts if one.startswith("--")), name)
            raise InputError(
                f"{flag} with --trl: TRL's file decides that. Write it there, or leave it out."
            )


def _is_default(context: typer.Context, name: str) -> bool:
    """Whether a parameter was not given."""
    source = context.get_parameter_source(name)
    return source is None or source.name == "DEFAULT"


def search_file(context: typer.Context, output: Output, budget: Budget) -> None:
    """Search around the file that --trl names.

    Raises:
        InputError: for a mistake in the options, the file or the data.
        typer.Exit: with code 1 if the user interrupted the search.
    """
    import optuna

    from optuna_llmbo.cli import storages
    from optuna_llmbo.cli import studies
    from optuna_llmbo.cli import tracking
    from optuna_llmbo.cli.conclusion import conclude
    from optuna_llmbo.cli.search import Search
    from optuna_llmbo.study.trial_attributes import CONTEXT
    from optuna_llmbo.study.trial_attributes import OPTIONS
    from optuna_llmbo.trainer.quiet import quiet_libraries

    given = dict(context.params)
    check_options(context)
    sampler, seed = given["sampler"], given["seed"]
    if _is_default(context, "seed"):
        given["seed"] = None  # the file's
    objective = objective_of(given, folder=given["folder"], keep=given["keep"])
    the_storage = storages.open_storage(given["storage"], given["heartbeat"])
    given["seed"] = objective.options.seed
    the_sampler = studies.make_sampler(
        sampler,
        seed=seed,
        n_objectives=1,
        llm=given["llm"],
        task=f"{_TRAINING[objective.file.task]} with {objective.file.path.name}.",
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    output.say("Loading the model and the data ...")
    quiet_libraries()
    prepared = objective.prepare()
    the_study = studies.open_study(
        the_storage,
        given["study"],
        objective.goals,
        the_sampler,
        studies.make_pruner(given["pruner"], given["reports"], n_objectives=1),
    )
    objective.check_study(the_study)
    about = the_study.user_attrs[CONTEXT]
    if sampler is options.SamplerName.llmbo:
        output.say(
            f"Typical values are those for {_TRAINING[objective.file.task]} of a model of "
            f"{about['parameters']:,} parameters in {about['steps']:,} steps."
        )
    record = {name: given[name] for name in _RECORDED}
    place = os.path.abspath(Path(given["trl"]).expanduser())
    file = objective.file
    record |= {"trl": place, "trl_text": file.text, "trl_task": file.task}
    the_study.set_user_attr(OPTIONS, options.to_record(record, prepared.space.distributions))
    trackers = tracking.trackers(given["track"], given["track_to"], objective.goals)
    tracking.introduce(trackers, output)
    search = Search(
        the_study,
        objective,
        output,
        budget,
        lambda number: studies.for_trial(sampler, the_sampler, seed, number),
        callbacks=trackers,
    )
    conclude(the_study, objective, output, given["storage"], budget.n_trials, search.run())


def objective_of(given: Mapping[str, Any], **more: Any) -> TRLObjective:
    """The objective that the options describe.

    Args:
        given: options of `tune`, by name.
        **more: arguments of `TRLObjective` that a study does not record.

    Raises:
        InputError: for a mistake in them.
    """
    from optuna_llmbo.trainer.trl_objective import TRLObjective

    named = list(given["metric"])
    if named == ["loss"]:  # the default of the option
        named = ["eval_loss"]
    if len(named) > 1:
        raise InputError(
            f"--metric {' --metric '.join(named)} with --trl: a search around TRL's file is on "
            "one metric."
        )
    metric, _, direction = named[0].partition(":")
    return TRLObjective(
        given["trl"],
        options.space_of(given),
        task=given.get("trl_task"),
        validation=given["validation"],
        test=given["test"],
        proxy=given["proxy"],
        proxy_by=given["proxy_by"],
        metric=metric,
        direction=direction or None,
        reports=given["reports"],
        seed=given["seed"],
        trial_timeout=options.seconds_or_none(given.get("trial_timeout")),
        **more,
    )


_TRAINING = {"sft": "LoRA fine-tuning (SFT)", "dpo": "preference tuning (DPO) with LoRA"}
