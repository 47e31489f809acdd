"""Keep libraries from writing into a live view."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Turn off progress bars and warnings of `transformers` and TRL, for the process: what a file
    of TRL's causes is TRL's to say, and shown by `trl`."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
