"""Graders that every file here shares: each one's worker takes seconds to import a computer algebra system."""

from collections.abc import Iterator

import pytest

from racro_pl.evaluation.outcomes import Tools
from racro_pl.reward.grader import Grader


@pytest.fixture(scope="session")
def grader() -> Iterator[Grader]:
    """For comparisons that end: a busy machine takes longer than a run allows."""
    with Grader(limit_s=100.0) as grader:
        yield grader


@pytest.fixture
def tools(grader: Grader) -> Tools:
    """What the rules of a benchmark judge with; no judge is asked."""
    return Tools(grader)


@pytest.fixture(scope="session")
def hasty_tools() -> Iterator[Tools]:
    """For texts whose comparison may never end."""
    with Grader(limit_s=0.5) as grader:
        yield Tools(grader)
