"""BLEU, chrF and ROUGE of generated answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from statistics import fmean
from typing import Any
from typing import ClassVar

from optuna_llmbo.errors import check_choice
from optuna_llmbo.lora.generate import check_decoding
from optuna_llmbo.lora.generate import Decoding
from optuna_llmbo.lora.metrics.measure import check_some
from optuna_llmbo.lora.metrics.measure import optional_module
from optuna_llmbo.lora.metrics.measure import TextMetric
from optuna_llmbo.lora.tokens import Example


SCORES = ("bleu", "chrf", "rouge1", "rouge2", "rougeL", "rougeLsum")


@dataclass(frozen=True)
class Overlap(TextMetric):
    """Overlap of generated answers with the responses, in the units of the papers.

    BLEU (Papineni et al. 2002) and chrF (Popovic 2015) of the whole set are in [0, 100], as
    sacrebleu computes them with its defaults. ROUGE (Lin 2004) is in [0, 1]: the mean F1 of the
    answers, as rouge-score computes it without a stemmer.

    Raises:
        InputError: if the score is unknown or its library is not installed.
    """

    score: str = "rougeL"
    """One of `SCORES`."""
    decoding: Decoding = field(default_factory=Decoding)
    direction: ClassVar[str] = "maximize"

    def __post_init__(self) -> None:
        check_choice("score", self.score, SCORES)
        self._library()

    @property
    def name(self) -> str:
        """The score's."""
        return self.score

    def check(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> None:
        """Raises InputError if there are no examples, or prompts do not fit."""
        check_some(examples)
        check_decoding(model, examples, self.decoding)

    def of_texts(self, texts: Sequence[str], examples: Sequence[Example]) -> float:
        """The value for texts already generated."""
        answers = [text.strip() for text in texts]
        responses = [example.record.response.strip() for example in examples]
        library = self._library()
        if self.score.startswith("rouge"):
            scorer = library.RougeScorer([self.score])
            scores = [
                scorer.score(response, answer)[self.score].fmeasure
                for answer, response in zip(answers, responses, strict=True)
            ]
            return float(fmean(scores))
        corpus = {"bleu": library.corpus_bleu, "chrf": library.corpus_chrf}[self.score]
        return float(corpus(answers, [responses]).score)

    def _library(self) -> Any:
        if self.score.startswith("rouge"):
            return optional_module("rouge_score.rouge_scorer", "rouge-score", self.score)
        return optional_module("sacrebleu", "sacrebleu", self.score)
