"""Silence library messages that no user can act on."""

from __future__ import annotations

import logging
import os
import warnings

_NOISE = (
    "litlogger", "litmodels", "TPU available", "HPU available", "GPU available: False", "`weights_only` was not set",
    "Detected KeyboardInterrupt",
)  # fmt: skip
"""Advertising, hardware that is not there or not used, and what the command line says in its own words."""


def quiet_libraries() -> None:
    """Silence notices of the libraries that tell the user nothing to do; our own messages stay."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # transformers sets its logger up when it is first imported, from this variable.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # A missing optional kernel package; NF4 works without it.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    # A font that has one weight.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).addFilter(lambda record: not any(word in record.getMessage() for word in _NOISE))
    for message in (
        ".*does not have many workers.*",
        ".*`_log_device_mesh`.*",
        ".*GPU available but not used.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        # A branch of a run has a folder, and a best checkpoint, of its own.
        ".*The dirpath has changed from.*",
        # The state after the optimizer's step is the one wanted.
        ".*Using ModelCheckpoint with manual optimization.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*Total length of .list. across ranks is zero.*",
        ".*You have overridden .transfer_batch_to_device..*",
    ):
        warnings.filterwarnings("ignore", message)
