"""Fixtures of several files."""

import pytest

from racro_pl.reward.http import HttpReasoner

DEADLINE_S = 2.0


@pytest.fixture
def connect():
    opened = []

    def build(url, **settings):
        reasoner = HttpReasoner(url, **({"deadline_s": DEADLINE_S, "backoff_s": 0.05} | settings))
        opened.append(reasoner)
        return reasoner

    yield build
    for reasoner in opened:
        reasoner.close()
