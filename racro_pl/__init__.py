"""RACRO: teach a vision-language model to write the captions that a text-only reasoner needs."""

__version__ = "0.1.0"
