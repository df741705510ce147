"""How much of a response scoring looks at."""

MAX_RESPONSE_CHARS = 200_000
"""Only the end of a longer response is scored: that is where its answer is, and rules must come back in time."""


def scored_part(response: str) -> str:
    """The end of a response, at most ``MAX_RESPONSE_CHARS`` characters."""
    return response[-MAX_RESPONSE_CHARS:]
