"""What a frozen vision tower made of images, kept from step to step within a bound on bytes."""

from __future__ import annotations

from collections import OrderedDict

import torch

from racro_pl.policy.features import ImageFeatures
from racro_pl.types import ImageRef

Images = tuple[ImageRef, ...]
"""A question's images name their features: files are taken not to change while a run lasts."""


class ImageCache:
    """Features by image, in main memory; when there is no room, those that were not asked for longest leave.

    Each rank has its own: nothing is exchanged.

    Args:
        limit: bound in bytes. Features that alone exceed it are not kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._kept: OrderedDict[Images, ImageFeatures] = OrderedDict()
        self._asked = self._found = 0

    def get(self, images: Images, device: torch.device) -> ImageFeatures | None:
        """The features on ``device``, bit for bit as they were put, or None."""
        self._asked += 1
        features = self._kept.get(images)
        if features is None:
            return None
        self._found += 1
        self._kept.move_to_end(images)
        return features.copy_to(device)

    def put(self, images: Images, features: ImageFeatures) -> None:
        """Keep a copy of features that :meth:`get` did not find."""
        size = features.bytes
        if size > self.limit:
            return
        while self.bytes + size > self.limit:
            _, oldest = self._kept.popitem(last=False)
            self.bytes -= oldest.bytes
        self._kept[images] = features.copy_to(torch.device("cpu"))
        self.bytes += size

    def drain_metrics(self) -> dict[str, float]:
        """Share of images found since the last call, and the memory in use (MiB)."""
        share = self._found / self._asked if self._asked else 0.0
        self._asked = self._found = 0
        return {"cache_hit_share": share, "cache_mib": self.bytes / 2**20}
