"""Rows and columns around images whose sides a network cannot halve: added before it, cut off after it.

Importing this file does not import torch.
"""

from __future__ import annotations

from typing import NamedTuple

from generator.spec.image_size import ImageSize


class Margins(NamedTuple):
    """Pixels to add at each border, the same at opposite borders, or one more at the bottom or at the right."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def are_empty(self) -> bool:
        return not any(self)

    def around(self, size: ImageSize) -> ImageSize:
        """The size of images of ``size`` with the margins."""
        return ImageSize(size.width + self.left + self.right, size.height + self.top + self.bottom)


def margins_to(size: ImageSize, factor: int) -> Margins:
    """The smallest margins that make both sides multiples of ``factor``."""
    rows, columns = -size.height % factor, -size.width % factor
    return Margins(rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)
