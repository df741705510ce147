"""The rule ``official``: what the authors of MathVista and MathVision count as right, by their own scripts."""

from racro_pl.evaluation.scoring.official_mathvision import mathvision
from racro_pl.evaluation.scoring.official_mathvista import mathvista

__all__ = ["mathvision", "mathvista"]
