"""Seeds that follow from what they are for, not from what was drawn before.

A stream of random numbers has a position, which threads, ranks and restarts would have to agree on. A seed made of
(the run's seed, step, question, caption, ...) has none: a resumed run draws what the uninterrupted one would have.
"""

from __future__ import annotations

import hashlib
import json


def seed_for(*parts: int | str) -> int:
    """A seed from 0 to 2**63 - 1 that follows from the parts, and their order, alone.

    Examples:
        >>> seed_for(1, "question 7", 0) == seed_for(1, "question 7", 0) != seed_for(1, "question 7", 1)
        True
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
