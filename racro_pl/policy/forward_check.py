"""Does a model's forward take what is passed to it, by name?"""

from __future__ import annotations

import inspect
from typing import Any

from racro_pl.types import RacroError

PASSED = ("input_ids", "position_ids", "mm_encoder_outputs")
"""What :class:`Captioner` passes to a model itself; all else is for its layers."""


def check_forward(model: Any) -> None:
    """Refuse a model whose forward does not name what is passed to it.

    Args:
        model: the part of a transformers model that a captioner calls (``model.model``).

    Raises:
        RacroError: names the arguments that it would swallow.
    """
    known = inspect.signature(model.forward).parameters
    swallowed = [name for name in PASSED if name not in known]
    if swallowed:
        import transformers

        raise RacroError(
            f"{type(model).__name__} of transformers {transformers.__version__} does not take {', '.join(swallowed)}: "
            "images or positions would be ignored; expected transformers >= 5.18"
        )
