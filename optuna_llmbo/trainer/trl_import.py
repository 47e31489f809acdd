"""TRL, which is installed where it is used."""

from __future__ import annotations

import logging
from typing import Any
import warnings

from optuna_llmbo.errors import InputError


def trl() -> Any:
    """The package TRL.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import trl
    except ImportError as error:
        raise InputError(
            f"TRL is needed and cannot be imported ({error}): pip install optuna-llmbo[trl]."
        ) from error
    return trl


def quiet_libraries() -> None:
    """Keep from standard error what would disturb a live view, for the rest of the process.

    What TRL and `transformers` warn of in a file is shown by `trl sft --config`, too.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
