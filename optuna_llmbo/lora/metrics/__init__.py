"""Metrics of a trained model, one file per metric.

Each has a name and a direction, and is called with a model, its tokenizer and examples.
"""

from optuna_llmbo.lora.metrics.adapter_size import AdapterSize as AdapterSize
from optuna_llmbo.lora.metrics.code_pass import CodePassAt1 as CodePassAt1
from optuna_llmbo.lora.metrics.custom import Custom as Custom
from optuna_llmbo.lora.metrics.exact_match import ExactMatch as ExactMatch
from optuna_llmbo.lora.metrics.loss import Loss as Loss
from optuna_llmbo.lora.metrics.measure import Measure as Measure
from optuna_llmbo.lora.metrics.multiple_choice import MultipleChoice as MultipleChoice
from optuna_llmbo.lora.metrics.overlap import Overlap as Overlap
from optuna_llmbo.lora.metrics.registry import from_name as from_name
from optuna_llmbo.lora.metrics.seconds import TrainingSeconds as TrainingSeconds
from optuna_llmbo.lora.metrics.several import check_all as check_all
from optuna_llmbo.lora.metrics.several import measure_all as measure_all
from optuna_llmbo.lora.metrics.titles import title_of as title_of
