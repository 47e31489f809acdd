"""`optuna-llmbo search`: search the hyperparameters of any program."""

from __future__ import annotations

from collections.abc import Mapping
import json
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import TYPE_CHECKING

import typer

from optuna_llmbo.cli import options
from optuna_llmbo.cli.duration import seconds_of
from optuna_llmbo.cli.terminal import bad_input_exits_with_2
from optuna_llmbo.cli.terminal import Output
from optuna_llmbo.errors import InputError
from optuna_llmbo.study.trial_attributes import TRIAL_CONFIG
from optuna_llmbo.study.trial_attributes import TRIAL_FOLDER


if TYPE_CHECKING:
    import optuna

    from optuna_llmbo.command.objective import CommandObjective


COMMAND = "Command"
"""Group of options in `--help`."""


def _option(help: str, *flags: str, **more: Any) -> Any:
    return typer.Option(*flags, help=help, rich_help_panel=COMMAND, **more)


Command = Annotated[
    str,
    _option(
        "The program and its arguments, with {config}, {folder}, {trial}, {gpus} or parameters in "
        "braces."
    ),
]
Config = Annotated[
    Path | None,
    _option("The program's own YAML, JSON or TOML file, of which each trial gets a copy."),
]
Space = Annotated[Path, _option("TOML file with the search space.")]
Metric = Annotated[str, _option("Name of the metric, as the program writes it.")]
Direction = Annotated[str, _option("minimize or maximize.")]
Take = Annotated[str, _option("Which value of the metric counts: last or best.")]
Set = Annotated[
    list[str],
    _option(
        "Set a key of the configuration to a parameter, arithmetic with parameters, text with "
        "{placeholders} or JSON; +KEY adds one. Repeat for several.",
        "--set",
        metavar="KEY=VALUE",
    ),
]
Env = Annotated[
    list[str],
    _option("Environment variable, with {placeholders}. Repeat for several.", metavar="NAME=TEXT"),
]
Default = Annotated[
    list[str],
    _option(
        "A parameter's value in the first trial, where the configuration does not say it. Repeat "
        "for several.",
        metavar="NAME=VALUE",
    ),
]
MetricRegex = Annotated[
    str | None,
    _option(
        "Regular expression that finds the metric in a line of the output: the group 'value', or "
        "the first; 'step', 'total', 'epoch', 'percent' say when."
    ),
]
MetricFiles = Annotated[
    list[str],
    _option(
        "File with the metric, or a pattern, in the trial's folder. Default: what the Hugging "
        "Face tools write. Repeat for several.",
        "--metric-file",
    ),
]
Context = Annotated[
    list[str],
    _option(
        "What decides which values are good: method=lora, parameters=7e9, steps=300. Repeat for "
        "several.",
        metavar="NAME=VALUE",
    ),
]
Folder = Annotated[Path, _option("Where each trial has its folder.")]
Gpus = Annotated[
    str | None,
    _option(
        "Devices, separated by commas, which the trials that run at once share out evenly. "
        "Default: all trials see all."
    ),
]
Grace = Annotated[
    str,
    _option("Time from asking a command to stop until it is killed.", metavar="DURATION"),
]
StopCommand = Annotated[
    str | None,
    _option("Run as well when a command is to stop, such as 'docker stop trial-{trial}'."),
]
Parallel = Annotated[int, _option("Trials to run at once.", min=1)]


def search(
    command: Command,
    space: Space,
    metric: Metric,
    config: Config = None,
    set_keys: Set = [],  # noqa: B006 - typer copies it
    env: Env = [],  # noqa: B006
    default: Default = [],  # noqa: B006
    direction: Direction = "minimize",
    take: Take = "last",
    metric_regex: MetricRegex = None,
    metric_files: MetricFiles = [],  # noqa: B006
    context: Context = [],  # noqa: B006
    folder: Folder = Path("runs"),
    parallel: Parallel = 1,
    gpus: Gpus = None,
    grace: Grace = "10s",
    stop_command: StopCommand = None,
    trials: options.Trials = 30,
    timeout: options.Timeout = None,
    stop_at_timeout: options.StopAtTimeout = False,
    trial_timeout: options.TrialTimeout = None,
    storage: options.Storage = "sqlite:///search.db",
    study: options.NewStudy = "search",
    sampler: options.Sampler = options.SamplerName.llmbo,
    pruner: options.Pruner = options.PrunerName.median,
    seed: options.Seed = 0,
    llm: options.Llm = None,
    track: options.Track = [],  # noqa: B006
    track_to: options.TrackTo = None,
    heartbeat: options.Heartbeat = 30,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Search the hyperparameters of any program; its configuration as it is is the first trial."""
    with bad_input_exits_with_2():
        import optuna

        from optuna_llmbo.cli import storages
        from optuna_llmbo.cli import studies
        from optuna_llmbo.cli import tracking
        from optuna_llmbo.cli.conclusion import conclude
        from optuna_llmbo.cli.search import Search
        from optuna_llmbo.cli.together import Together
        from optuna_llmbo.command.objective import CommandObjective
        from optuna_llmbo.command.plan import read_pairs

        output = Output(quiet=quiet, json=as_json)
        budget = options.budget_of(trials, timeout, stop_at_timeout, at_once=parallel)
        objective = CommandObjective(
            command,
            space,
            metric,
            config=config,
            assign=read_pairs(set_keys, "--set"),
            env=read_pairs(env, "--env"),
            defaults=_values(read_pairs(default, "--default")),
            direction=direction,
            take=take,
            metric_regex=metric_regex,
            metric_files=metric_files,
            context=_values(read_pairs(context, "--context")),
            folder=folder,
            gpus=shares(gpus, parallel),
            grace=seconds_of(grace),
            stop_command=stop_command,
            trial_timeout=options.seconds_or_none(trial_timeout),
        )
        options.check_sampler(study, sampler, llm)
        tracking.check(track, track_to)
        the_sampler = studies.make_sampler(
            sampler, seed=seed, n_objectives=1, llm=llm, task=f"{direction} {metric} of: {command}"
        )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        the_study = studies.open_study(
            storages.open_storage(storage, heartbeat),
            study,
            objective.goals,
            the_sampler,
            studies.make_pruner(pruner, _REPORTS, n_objectives=1),
        )
        objective.check_study(the_study)
        _introduce(objective, output, parallel, gpus)
        trackers = tracking.trackers(track, track_to, objective.goals)
        tracking.introduce(trackers, output)
        search = Search(
            the_study,
            objective,
            output,
            budget,
            lambda number: studies.for_trial(sampler, the_sampler, seed, number),
            run=Together(objective, parallel) if parallel > 1 else None,
            callbacks=trackers,
        )
        ended = search.run()
    try:
        conclude(the_study, objective, output, storage, trials, ended)
    finally:  # it ends an interrupted search by raising
        _show_files(the_study, output)


_REPORTS = 10
"""Reports of a trial that Hyperband reckons with."""


def shares(gpus: str | None, parallel: int) -> tuple[str, ...]:
    """The devices of each trial that runs at once.

    Args:
        gpus: devices, separated by commas.
        parallel: trials at once.

    Raises:
        InputError: if they cannot be shared out evenly.
    """
    if gpus is None:
        return ()
    names = [name.strip() for name in gpus.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise InputError(f"--gpus {gpus!r}: expected different devices, such as 0,1,2,3.")
    each, left = divmod(len(names), parallel)
    if left or not each:
        raise InputError(
            f"--gpus {gpus} has {len(names)} device{'' if len(names) == 1 else 's'}, which "
            f"--parallel {parallel} trials cannot share out evenly: change one of the two."
        )
    return tuple(",".join(names[i : i + each]) for i in range(0, len(names), each))


def _values(pairs: Mapping[str, str]) -> dict[str, Any]:
    """Values as JSON, else as texts."""
    return {name: _value(text) for name, text in pairs.items()}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _introduce(
    objective: CommandObjective, output: Output, parallel: int, gpus: str | None
) -> None:
    """Say what the first trial is, and what may surprise."""
    control = objective.control
    if control.params is not None:
        values = ", ".join(f"{name}={value}" for name, value in control.params.items())
        output.say(f"The first trial is the configuration as it is: {values}.")
    else:
        output.say(
            f"No trial runs the configuration as it is: {'; '.join(control.reasons)}. "
            "--default NAME=VALUE says it."
        )
    if parallel > 1 and gpus is None:
        output.say(f"All {parallel} trials at once see the same devices; --gpus shares them out.")


def _show_files(study: optuna.Study, output: Output) -> None:
    """Say where the files of the best trial are."""
    from optuna_llmbo.study.progress import progress_of

    for best in progress_of(study).best:
        config = best.user_attrs.get(TRIAL_CONFIG)
        file = "" if config is None else f", its configuration {Path(config).name}"
        output.say(f"Files of the best trial: {best.user_attrs.get(TRIAL_FOLDER)}{file}")
