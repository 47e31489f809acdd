from optuna_llmbo import LLMBOSampler


__all__ = ["LLMBOSampler"]
