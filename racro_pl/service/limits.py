"""What one request may be, and how long each of its parts may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of the service. All of them hold while a request is being read, not after."""

    body_bytes: int = 32_000_000
    images: int = 8
    """In all messages of a request together."""
    image_bytes: int = 10_000_000
    image_pixels: int = 16_000_000
    image_addresses: bool = False
    """Whether images at public https addresses are fetched; else they are refused."""
    text_characters: int = 20_000
    """Of all texts of a request together."""
    messages: int = 32
    json_depth: int = 32
    header_s: float = 10.0
    """Seconds for a request's head."""
    body_s: float = 30.0
    """Seconds for its whole body."""
    send_s: float = 30.0
    """Seconds in which a client has to take each piece of a response."""
    deadline_s: float = 300.0
    """Seconds for an answer, waiting in line included."""
    working: int = 32
    """Requests being answered at once."""
    waiting: int = 16
    """Requests in line for that; further ones get status 429."""
    remembered_captions: int = 1024
    """Captions of earlier images that are kept, for conversations that are sent again with every message."""

    @property
    def connections(self) -> int:
        """Open at once: of requests that are answered, wait or are turned away, and a few idle ones."""
        return self.working + self.waiting + 16
