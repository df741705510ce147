"""Callbacks for ``trainer.callbacks``."""

from __future__ import annotations

from racro_pl.training.callbacks import (
    CaptionGallery,
    CaptionLog,
    CaptionWatch,
    LearningReport,
    LivePage,
    ParameterCount,
    Preflight,
    SaveResult,
    SolvedQuestions,
    StepProgressBar,
    VllmReasonerServer,
)

__all__ = [
    "CaptionGallery",
    "CaptionLog",
    "CaptionWatch",
    "LearningReport",
    "LivePage",
    "ParameterCount",
    "Preflight",
    "SaveResult",
    "SolvedQuestions",
    "StepProgressBar",
    "VllmReasonerServer",
]
