"""Checkpoints, what a resumed run finds again, and the signals that end a run."""
