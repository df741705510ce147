"""Untrusted model folders: what is read of them, what is refused, and weights loaded whole or not at all."""
