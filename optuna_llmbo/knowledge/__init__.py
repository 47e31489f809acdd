"""Knowledge about hyperparameters: prose, derived quantities and recommended values."""

from optuna_llmbo.knowledge.context import Condition
from optuna_llmbo.knowledge.context import Context
from optuna_llmbo.knowledge.expression import Expression
from optuna_llmbo.knowledge.expression import parse
from optuna_llmbo.knowledge.knowledge import Knowledge
from optuna_llmbo.knowledge.loader import load_knowledge
from optuna_llmbo.knowledge.loader import load_pack
from optuna_llmbo.knowledge.loader import load_packs
from optuna_llmbo.knowledge.loader import PackSource
from optuna_llmbo.knowledge.pack import Choice
from optuna_llmbo.knowledge.pack import DerivedQuantity
from optuna_llmbo.knowledge.pack import Hyperparameter
from optuna_llmbo.knowledge.pack import Pack
from optuna_llmbo.knowledge.pack import Recommendation
from optuna_llmbo.knowledge.pack import TypicalRange
from optuna_llmbo.knowledge.pack import Value


__all__ = [
    "Choice",
    "Condition",
    "Context",
    "DerivedQuantity",
    "Expression",
    "Hyperparameter",
    "Knowledge",
    "Pack",
    "PackSource",
    "Recommendation",
    "TypicalRange",
    "Value",
    "load_knowledge",
    "load_pack",
    "load_packs",
    "parse",
]
