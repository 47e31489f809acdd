"""Names of all attributes that the package writes into studies and their trials.

User attributes, which dashboards show, unless a comment says otherwise.
"""

# Set by an objective: how a trial ended.
INTERRUPTED = "interrupted"
"""True for a trial that the user stopped, or the end of the search's time: it says nothing about
its configuration."""
INFEASIBLE = "infeasible"
"""True for a pruned trial whose configuration cannot be run, whatever it reported before."""
PRUNED_REASON = "pruned_reason"
FAILED_REASON = "failed_reason"
"""Why a trial failed, in a sentence."""
TRACEBACK = "traceback"
"""The end of a crashed trial's traceback."""
PROBLEMS = "problems"
"""What went wrong in a trial without ending it, a sentence for each."""

# Set by `LoRAObjective`: what a trial was and cost; its docstring gives the units.
IS_DEFAULT = "is_default"
RECIPE = "recipe"
"""All hyperparameters it is trained with, by name, whether they are searched or not."""
EXTRA = "extra_hyperparameters"
"""Hyperparameters of a trial of `TrainerObjective` that a `LoRARecipe` does not have, by name."""
SECONDS = "seconds"
STEPS = "steps"
TOKENS = "tokens"
EXAMPLES = "examples"
FRACTION = "fraction"
DROPPED_EXAMPLES = "dropped_examples"
PEAK_MEMORY_BYTES = "peak_memory_bytes"
BASE_LOSS = "base_loss"
DEFAULT_LOSS = "default_loss"
GAIN_OVER_BASE = "gain_over_base"
GAIN_OVER_DEFAULT = "gain_over_default"
METRICS = "metrics"
"""Values of the extra metrics by name."""
BEST_REPORT = "best_report"
"""Percentage of the training at which the report that counts was made, where the best one does."""
ADAPTER = "adapter"
"""The folder of the kept adapter."""

# Set by `LLMBOSampler`: who chose a trial and what was expected of it.
SAMPLER_PREFIX = "llmbo:"
CHOSEN_BY = "llmbo:path"
SUGGESTION_SECONDS = "llmbo:seconds"
EXPECTED_MEAN = "llmbo:mean"
EXPECTED_STANDARD_DEVIATION = "llmbo:deviation"
ACQUISITION = "llmbo:acquisition"
TRUST = "llmbo:trust"
"""The probability that values are better where knowledge and the user's prior expect them."""
TEXT = "llmbo:text"
"""The language model and a hash of its prompt."""
PLAN_PREFIX = "llmbo:plan:"
"""Start of the system attributes that hold what a running trial is going to try."""

# Set on the study: how `LoRAObjective` and `optuna-llmbo tune` made it.
FINGERPRINT = "lora_objective"
"""All that determines a result besides the hyperparameters: `LoRAObjective.fingerprint`."""
CONTEXT = "llmbo:context"
"""What decides which values are good, for `LLMBOSampler`: method, parameters, steps."""
OPTIONS = "lora_options"
"""The options of `optuna-llmbo tune`, for later commands."""
WORKING_FOLDER = "working_folder"
"""Among these options: where `tune` was run, to which paths are relative."""

# System attributes of the study: what the dashboard has been given.
UPLOADED_PREFIX = "llmbo:artifacts:"
"""Start of the attributes that map a file's name to its artifact's id."""
NOTED = "llmbo:noted"
"""Numbers of the trials that have a note of ours."""
PUBLISHED = "llmbo:published"
"""How many finished trials were published last, and who did it."""
