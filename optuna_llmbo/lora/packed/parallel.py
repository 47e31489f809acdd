"""Run several trials of a study at once on one device and one frozen model."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
from dataclasses import field
import time
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.evaluate import device_of
from optuna_llmbo.lora.memory import as_out_of_memory
from optuna_llmbo.lora.memory import is_out_of_memory
from optuna_llmbo.lora.objective import LoRAObjective
from optuna_llmbo.lora.options import check_count
from optuna_llmbo.lora.packed.job import Job
from optuna_llmbo.lora.packed.job import StepOutcome
from optuna_llmbo.lora.packed.layers import is_packable
from optuna_llmbo.lora.packed.pack import Pack
from optuna_llmbo.lora.preflight import smallest
from optuna_llmbo.lora.prepare import Prepared
from optuna_llmbo.lora.resources import peak_memory_bytes
from optuna_llmbo.lora.resources import reset_peak_memory
from optuna_llmbo.lora.run import OUT_OF_MEMORY
from optuna_llmbo.lora.run import Run
from optuna_llmbo.lora.train import TrainingDiverged
from optuna_llmbo.lora.train import TrainStep
from optuna_llmbo.study import compat
from optuna_llmbo.study.time_limits import SearchTimedOut
from optuna_llmbo.study.trial_attributes import INTERRUPTED


Callback = Callable[[optuna.Study, FrozenTrial], None]

_logger = optuna.logging.get_logger("optuna.optuna_llmbo.lora")


def optimize_packed(
    study: optuna.Study,
    objective: LoRAObjective,
    n_trials: int,
    n_parallel: int = 4,
    callbacks: Sequence[Callback] = (),
    *,
    max_rows: int | None = None,
    begin: Callable[[], optuna.Trial | None] | None = None,
) -> None:
    """`study.optimize(objective, n_trials)`, several trials at once on one model (`Pack`).

    As soon as a trial ends, the next one takes its place, so that the sampler chooses while others
    are running. Each trial's losses are those it would have alone, up to the rounding of sums; it
    reports at the same points, is pruned or fails for the same reasons and records the same
    attributes. `seconds` is this trial's share; the shares sum to the wall time, to which the time
    limit of a trial applies. On CUDA `peak_memory_bytes` is the peak of the whole pack so far.
    Optuna's own durations overlap, which `LLMBOSampler(cost_aware=True)` does not account for. On
    a storage with heartbeats each trial has its own, and trials whose process died are retried
    from the beginning, as none of their state is saved.

    A trial that changes the base model (`check_packable`: by its variant, its biases, whole
    modules or adapters of the embeddings) is trained alone while the others wait.

    Needs memory for `n_parallel` times the activations of one trial.

    Args:
        study: its direction must be "minimize".
        objective: the objective. Other threads that call it wait until this is done.
        n_trials: number of trials to run, however they end.
        n_parallel: maximum number of trials at once.
        callbacks: called after every trial with the study and the trial. A callback
            ends the run by raising; `study.stop` works in `study.optimize` only.
        max_rows: maximum number of examples per forward pass over all trials; see `Pack`.
        begin: begins a trial, or returns None when there is to be no further one, even if there
            are less than `n_trials`; None: the study is asked.

    Raises:
        InputError: for a mistake in the inputs, see `LoRAObjective.prepare` and `check_study`. The
            running trials then fail.
        KeyboardInterrupt: passed on; the running trials then fail, with `interrupted`.
    """
    for name, value in (("n_trials", n_trials), ("n_parallel", n_parallel)):
        check_count(name, value)
    if max_rows is not None:
        check_count("max_rows", max_rows)
    with objective.exclusive() as prepared:
        objective.check_study(study)
        if not prepared.is_on_loss:
            raise InputError(
                "trials that train at once are measured by their loss; for another metric run "
                "study.optimize(objective)."
            )
        _check_packs(prepared)
        reset_peak_memory(device_of(prepared.model))
        size = objective.options.micro_batch_size
        with Pack(prepared.model, micro_batch_size=size, max_rows=max_rows) as pack:
            driver = _Driver(study, objective, prepared, pack, callbacks)
            driver.optimize(n_trials, n_parallel, begin or driver.ask)


def _check_packs(prepared: Prepared) -> None:
    """Check that the model keeps the rows of a batch apart in the layers that are searched.

    Raises:
        InputError: if it does not, as where experts read tokens and not examples.
    """
    model, shortest = prepared.model, min(prepared.train, key=len)
    for recipe in dict.fromkeys(map(smallest, prepared.space.admitted)):
        if is_packable(model, recipe):
            with Pack(model, micro_batch_size=1) as pack:
                for _ in range(2):
                    pack.add(recipe, [shortest])
                pack.step()


@dataclass(eq=False)
class _Flight:
    """A running trial."""

    trial: optuna.Trial
    run: Run | None = None
    """None while its hyperparameters are being chosen."""
    job: Job | None = None
    """Its adapter in the pack; None while it is trained alone."""
    alive: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """Its heartbeat, until it ends."""


class _Driver:
    """Keeps a pack filled with the trials of a study."""

    def __init__(
        self,
        study: optuna.Study,
        objective: LoRAObjective,
        prepared: Prepared,
        pack: Pack,
        callbacks: Sequence[Callback],
    ) -> None:
        self._study = study
        self._objective = objective
        self._prepared = prepared
        self._pack = pack
        self._callbacks = callbacks
        self._flights: list[_Flight] = []

    def ask(self) -> optuna.Trial:
        """Ask the study for a trial."""
        compat.retry_stale_trials(self._study)
        return compat.ask(self._study)

    def optimize(
        self, n_trials: int, n_parallel: int, begin: Callable[[], optuna.Trial | None]
    ) -> None:
        """Run `n_trials` trials; those running when an error occurs fail."""
        begun = 0
        try:
            while begun < n_trials or self._flights:
                if begun < n_trials and len(self._flights) < n_parallel:
                    begun += 1
                    trial = begin()
                    if trial is not None:
                        self._begin(trial)
                    else:
                        n_trials = begun
                else:
                    self._go_on()
        except KeyboardInterrupt:
            for flight in self._flights:
                flight.trial.set_user_attr(INTERRUPTED, True)
            raise
        finally:
            for flight in self._flights:
                flight.alive.close()
            for flight in self._flights:
                self._record(flight)
                self._study.tell(flight.trial, state=TrialState.FAIL)

    def _begin(self, trial: optuna.Trial) -> None:
        """Put a trial's adapter into the pack."""
        flight = _Flight(trial)
        self._flights.append(flight)
        flight.alive.enter_context(compat.heartbeat(flight.trial))
        recipe = self._prepared.space.suggest(flight.trial)
        objective, options = self._objective, self._objective.options
        flight.run = Run(
            flight.trial, recipe, self._prepared, options, objective.progress, objective.limits
        )
        if not is_packable(self._prepared.model, recipe):
            self._train_alone(flight, flight.run)
            return
        flight.run.start()
        try:
            with as_out_of_memory():
                flight.job = self._pack.add(recipe, self._prepared.train, seed=options.seed)
            trained = flight.job.adapter.parameters
            flight.run.trained = {str(i): parameter for i, parameter in enumerate(trained)}
        except torch.OutOfMemoryError:
            self._prune(flight, flight.run.infeasible(OUT_OF_MEMORY))

    def _train_alone(self, flight: _Flight, run: Run) -> None:
        """Run a whole trial as the objective does; `Run` records its cost."""
        try:
            (loss,) = run()
        except optuna.TrialPruned as pruned:
            self._prune(flight, pruned)
        except SearchTimedOut:
            self._interrupt(flight)
        else:
            self._complete(flight, loss)

    def _go_on(self) -> None:
        """Take one step of the pack and act on the outcomes."""
        due: dict[Job, tuple[_Flight, Run, int]] = {}
        outcomes = self._pack.step()
        for flight in list(self._flights):
            if flight.job not in outcomes:
                continue
            assert flight.job is not None and flight.run is not None
            percent = self._counted(flight, flight.run, outcomes[flight.job])
            if percent is not None:
                due[flight.job] = (flight, flight.run, percent)
        for job, loss in self._losses(list(due)).items():
            flight, run, percent = due[job]
            self._report(flight, run, job, loss, percent)
        for job, (flight, run, _) in due.items():
            if flight in self._flights and job not in self._pack.jobs:
                self._prune(flight, run.infeasible(OUT_OF_MEMORY))

    def _counted(self, flight: _Flight, run: Run, outcome: StepOutcome) -> int | None:
        """Count a step; return the percentage to report at, if a report is due."""
        try:
            if isinstance(outcome, TrainStep):
                return run.count(outcome)
            reason = OUT_OF_MEMORY if is_out_of_memory(outcome) else str(outcome)
        except TrainingDiverged as error:
            reason = str(error)
        except optuna.TrialPruned as pruned:
            self._prune(flight, pruned)
            return None
        except SearchTimedOut:
            self._interrupt(flight)
            return None
        self._prune(flight, run.infeasible(reason))
        return None

    def _losses(self, jobs: Sequence[Job]) -> dict[Job, float]:
        """Validation losses; adapters that run out of memory leave the pack."""
        options = self._objective.options
        try:
            losses = self._pack.evaluate(
                jobs, self._prepared.validation, batch_size=options.micro_batch_size
            )
        except torch.OutOfMemoryError:
            if len(jobs) == 1:
                self._pack.remove(jobs[0])
                return {}
        else:
            return dict(zip(jobs, losses, strict=True))
        return self._losses(jobs[:1]) | self._losses(jobs[1:])

    def _report(self, flight: _Flight, run: Run, job: Job, loss: float, percent: int) -> None:
        """Report a loss; end the trial if it is pruned or finished."""
        try:
            run.report(loss, percent)
        except optuna.TrialPruned as pruned:
            self._prune(flight, pruned)
        except SearchTimedOut:
            self._interrupt(flight)
        except TrainingDiverged as error:
            self._prune(flight, run.infeasible(str(error)))
        else:
            if job.finished:
                value = run.decisive(loss)
                self._measure(run, job)
                self._complete(flight, value)

    def _measure(self, run: Run, job: Job) -> None:
        """Measure the extra metrics and save the adapter; the time counts for this trial."""
        began = time.perf_counter()
        with self._pack.alone(job):
            run.conclude()
        job.seconds += time.perf_counter() - began

    def _complete(self, flight: _Flight, loss: float) -> None:
        self._record(flight)
        assert flight.run is not None
        flight.run.complete(loss)
        self._end(flight, values=loss)
        _logger.info(f"Trial {flight.trial.number} finished with value: {loss}.")

    def _prune(self, flight: _Flight, pruned: optuna.TrialPruned) -> None:
        self._record(flight)
        self._end(flight, state=TrialState.PRUNED)
        _logger.info(f"Trial {flight.trial.number} pruned. {pruned}")

    def _interrupt(self, flight: _Flight) -> None:
        """End a trial whose time is that of the search, which is over."""
        self._record(flight)
        self._end(flight, state=TrialState.FAIL)

    def _record(self, flight: _Flight) -> None:
        """Record the cost of a trial."""
        if flight.run is not None and flight.job is not None:
            memory = peak_memory_bytes(device_of(self._prepared.model))
            flight.run.record(flight.job.seconds, memory)

    def _end(self, flight: _Flight, **result: Any) -> None:
        """Tell the study, free the place and run the callbacks."""
        self._flights.remove(flight)
        flight.alive.close()
        told = self._study.tell(flight.trial, **result)
        if flight.job in self._pack.jobs:
            self._pack.remove(flight.job)
        for callback in self._callbacks:
            callback(self._study, told)
