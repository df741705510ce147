"""Callbacks for ``trainer.callbacks``."""

from __future__ import annotations

from racro_pl.training.callbacks import (
    CaptionLog,
    CaptionWatch,
    LearningReport,
    Preflight,
    SaveResult,
    SolvedQuestions,
    StepProgressBar,
    VllmReasonerServer,
)

__all__ = [
    "CaptionLog",
    "CaptionWatch",
    "LearningReport",
    "Preflight",
    "SaveResult",
    "SolvedQuestions",
    "StepProgressBar",
    "VllmReasonerServer",
]
