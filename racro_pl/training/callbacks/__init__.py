"""What a run records and watches; each is an ordinary Lightning callback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from racro_pl.lazy import lazy_names

if TYPE_CHECKING:
    from racro_pl.training.callbacks.caption_watch import CaptionWatch
    from racro_pl.training.callbacks.gallery import CaptionGallery
    from racro_pl.training.callbacks.learning_report import LearningReport
    from racro_pl.training.callbacks.live_page import LivePage
    from racro_pl.training.callbacks.parameter_count import ParameterCount
    from racro_pl.training.callbacks.preflight import Preflight
    from racro_pl.training.callbacks.progress import StepProgressBar
    from racro_pl.training.callbacks.records import CaptionLog, SaveResult, SolvedQuestions
    from racro_pl.training.callbacks.vllm_server import VllmReasonerServer

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

__getattr__ = lazy_names(
    __name__,
    {
        f"{__name__}.gallery": "CaptionGallery",
        f"{__name__}.records": "CaptionLog SaveResult SolvedQuestions",
        f"{__name__}.caption_watch": "CaptionWatch",
        f"{__name__}.learning_report": "LearningReport",
        f"{__name__}.live_page": "LivePage",
        f"{__name__}.parameter_count": "ParameterCount",
        f"{__name__}.preflight": "Preflight",
        f"{__name__}.progress": "StepProgressBar",
        f"{__name__}.vllm_server": "VllmReasonerServer",
    },
)
