"""Where a step's memory goes, computed before a weight is loaded: from the model's config and the settings alone.

Parameters are counted on the meta device; everything else follows from shapes, by the formulas of
``policy/memory/formulas.py``. What is left out: the GPU's own context, what the allocator cannot use (``OVERHEAD``),
and the activations of a vision tower that is trained itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from racro_pl.policy.config import PolicySettings
from racro_pl.policy.memory.formulas import (
    Work,
    activation_bytes,
    adapted_expert_bytes,
    cache_bytes,
    feature_bytes,
    logit_bytes,
    prefill_bytes,
    row_of,
    shape_of,
    tower_bytes,
    trained_bytes,
    weight_bytes,
    workspace_bytes,
)
from racro_pl.policy.memory.known_models import KNOWN, known_config
from racro_pl.pretrained.weights import load_config

GIB = 2**30
OVERHEAD = 0.7 * GIB
"""CUDA context, cuBLAS workspaces and what fragmentation loses: a guess, not a formula."""
OPTIMIZER, FEATURES, CACHE = "optimizer: two moments", "image features of the step", "keys and values"
OTHER_GRADIENTS = "gradients of the other loss"
Phase = Literal["tower", "sampling", "logits", "backward"]
"""The vision tower at work; captions being sampled; the end of a forward pass; a layer in the backward pass."""
PHASES: tuple[Phase, ...] = ("tower", "sampling", "logits", "backward")


@dataclass(frozen=True)
class Entry:
    """One line of the ledger."""

    name: str
    bytes: int
    phases: tuple[Phase, ...] = PHASES
    """When it is there; all phases: always."""


@dataclass(frozen=True)
class Ledger:
    """All lines. Phases follow each other: a step's peak is what is always there and the largest phase."""

    entries: tuple[Entry, ...]

    def total(self, phase: Phase) -> int:
        """Bytes of all that is there in a phase."""
        return sum(entry.bytes for entry in self.entries if phase in entry.phases)

    @property
    def largest_phase(self) -> Phase:
        """The phase that sets the peak."""
        return max(PHASES, key=self.total)

    @property
    def peak(self) -> int:
        """Bytes of tensors at the worst moment."""
        return self.total(self.largest_phase)

    def bytes_of(self, name: str) -> int:
        """Bytes of one line; 0 when there is no such line."""
        return sum(entry.bytes for entry in self.entries if entry.name == name)

    def lines(self) -> list[str]:
        """The ledger as text, one line an entry, in GiB; what makes up the peak is marked with a star."""
        rows = [
            f"{entry.name:<34}{entry.bytes / GIB:7.2f} {'*' if self.largest_phase in entry.phases else ' '} "
            + ("" if entry.phases == PHASES else ", ".join(entry.phases))
            for entry in self.entries
        ]
        return [row.rstrip() for row in [*rows, f"{f'peak ({self.largest_phase})':<34}{self.peak / GIB:7.2f} *"]]


def memory_ledger(config: Any, policy: PolicySettings, work: Work) -> Ledger:
    """Compute the ledger of a configuration.

    Args:
        config: the transformers config of the captioner.

    Raises:
        RacroError: the model's family is not supported.
    """
    model = on_meta(config)
    shape = shape_of(model)
    c = 4 if policy.dtype == "float32" else 2
    base = weight_bytes(model, policy, c)
    trained = trained_bytes(model, policy, c)
    experts = adapted_expert_bytes(shape, c, policy)
    entries = [Entry("weights", base)]
    if policy.lora is None:
        entries.append(Entry("frozen copy as reference", base))
    else:
        entries.append(Entry("adapters", trained))
    entries += [
        Entry(OPTIMIZER, 2 * trained),
        Entry(FEATURES, feature_bytes(shape, c, work)),
        Entry("vision tower at work", tower_bytes(shape, c, work), ("tower",)),
    ]
    if work.sampled_together:
        entries += [
            Entry(CACHE, cache_bytes(shape, c, work), ("sampling",)),
            Entry("prompts being read", prefill_bytes(shape, c, work), ("sampling",)),
            *([Entry("a layer's experts, adapted", experts, ("sampling",))] if experts else []),
        ]
    if work.losses > 1:
        entries.append(Entry(OTHER_GRADIENTS, (work.losses - 1) * trained, ("logits", "backward")))
    return Ledger(
        (
            *entries,
            Entry("gradients", trained, ("logits", "backward")),
            Entry("kept activations", activation_bytes(shape, c, policy, work), ("logits", "backward")),
            Entry("logits of a chunk", logit_bytes(shape, c, work), ("logits",)),
            Entry("a layer going backward", workspace_bytes(shape, c, policy, row_of(work)), ("backward",)),
        )
    )


def planning_config(path: str) -> Any:
    """The config of a captioner for :func:`memory_ledger`, without a download where it is known here.

    Raises:
        RacroError: there is none at ``path``.
    """
    if path in KNOWN:
        return known_config(path)
    return load_config(path, f"policy.path {path!r}")


def on_meta(config: Any) -> Any:
    """A captioner without weights: modules and sizes, on the meta device."""
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)
