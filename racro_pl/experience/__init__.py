"""From captions and rewards to what the loss needs."""

from racro_pl.experience.assembler import Draft, assemble, draft

__all__ = ["Draft", "assemble", "draft"]
