"""Questions that are left out of a step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from racro_pl.training.encoding import telling


@pytest.mark.parametrize("first", [True, False])
def test_every_rank_names_the_questions_that_it_leaves_out(capsys, first):
    """Another rank's are known to that rank alone."""
    told = []
    module = SimpleNamespace(print=told.append, trainer=SimpleNamespace(is_global_zero=first))
    telling(module)("question 7 left out")
    assert told + capsys.readouterr().out.splitlines() == ["question 7 left out"]
    assert bool(told) == first
