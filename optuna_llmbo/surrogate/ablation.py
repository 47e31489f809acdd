"""Internal choices of the method, exposed for ablations; the benchmark chose the defaults."""

from __future__ import annotations

from dataclasses import dataclass

from optuna_llmbo.surrogate.targets import TransformName


@dataclass(frozen=True)
class Ablation:
    """Internal choices, exposed for ablations.

    Attributes:
        transform: how targets are scaled, see `targets`.
        derived: whether the numeric view includes derived quantities.
        train_token: whether the learnable token is trained.
        random_places: whether choices are placed at random instead of where a language model puts
            them: a control for what they mean.
        train_projection: whether the projection of whole configurations' embeddings is trained.
        prior_strength: exponent beta of the prior: pi(x) ** (beta trust / n) after n trials
            (Hvarfner et al. 2022, arXiv:2204.11051; trust: `hypothesis.trust`); 0 switches it off.
        prior_start: whether start-up points are drawn from the prior, not uniformly.
        members: how many processes the surrogate consists of at most, each with hyperparameters
            drawn from their posterior; 1: only the likeliest ones.
        refinements: rounds of local search for a better acquisition value.
        recommended_first: whether a study starts with what the packs recommend.
    """

    transform: TransformName = "winsorize"
    derived: bool = True
    train_token: bool = True
    random_places: bool = False
    train_projection: bool = True
    prior_strength: float = 1.0
    prior_start: bool = False
    members: int = 1
    refinements: int = 8
    recommended_first: bool = True
