"""What a run records and watches; each is an ordinary Lightning callback, and ``TrackioLogger`` a logger."""

from racro_pl.training.callbacks.caption_watch import CaptionWatch
from racro_pl.training.callbacks.gallery import CaptionGallery
from racro_pl.training.callbacks.learning_report import LearningReport
from racro_pl.training.callbacks.live_page import LivePage
from racro_pl.training.callbacks.parameter_count import ParameterCount
from racro_pl.training.callbacks.preflight import Preflight
from racro_pl.training.callbacks.progress import StepProgressBar
from racro_pl.training.callbacks.records import CaptionLog, SaveResult, SolvedQuestions
from racro_pl.training.callbacks.trackio_logger import TrackioLogger
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
    "TrackioLogger",
    "VllmReasonerServer",
]
