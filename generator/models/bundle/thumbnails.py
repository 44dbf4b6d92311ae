"""Small pictures of real images in a bundle, to show them beside samples. Only where they were asked for.

They are real images: whoever has the bundle can look at them, and they carry no mark of synthetic images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from generator.errors import BundleError

MAX_BYTES, MAX_PICTURES = 64 * 1024 * 1024, 100_000
_SIDE, _QUALITY = 64, 85  # pixels, of the longer side
_FIELD = "thumbnails.safetensors"


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """JPEG files one after another. ``rows_T``: the row among the bundle's codes of each, int64, ascending; ``ends_T``:
    where each file ends in ``data``, uint8."""

    rows_T: np.ndarray
    ends_T: np.ndarray
    data: np.ndarray

    def find(self, row: int) -> bytes | None:
        """The JPEG file of the training image whose code has this row, if it is kept."""
        place = int(np.searchsorted(self.rows_T, row))
        if place == len(self.rows_T) or self.rows_T[place] != row:
            return None
        begin = int(self.ends_T[place - 1]) if place else 0
        return self.data[begin : int(self.ends_T[place])].tobytes()

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays of ``thumbnails.safetensors``."""
        return {"rows": self.rows_T, "ends": self.ends_T, "data": self.data}


def make_thumbnails(images_NHWC: np.ndarray) -> Thumbnails:
    """Of the uint8 training images whose codes a bundle keeps, in the order of the codes.

    Of at most ``MAX_PICTURES`` of them, evenly spaced, and of fewer where these would take more than ``MAX_BYTES``.
    """
    rows_T = _evenly_spaced(len(images_NHWC), MAX_PICTURES)
    files = [_encode(images_NHWC[row]) for row in rows_T.tolist()]
    if (total := sum(map(len, files))) > MAX_BYTES:
        places = _evenly_spaced(len(files), max(1, len(files) * MAX_BYTES // (2 * total)))
        rows_T, files = rows_T[places], [files[place] for place in places.tolist()]
    data = np.frombuffer(b"".join(files), dtype=np.uint8)
    return Thumbnails(rows_T, np.cumsum([len(file) for file in files], dtype=np.int64), data)


def parse_thumbnails(tensors: Mapping[str, np.ndarray], field: str = _FIELD) -> Thumbnails:
    """The stored pictures; ``field`` names their file. Raises ``BundleError``."""
    found = {name: (str(array.dtype), array.ndim) for name, array in tensors.items()}
    wanted = {"rows": ("int64", 1), "ends": ("int64", 1), "data": ("uint8", 1)}
    if found != wanted or len(tensors["rows"]) != len(tensors["ends"]):
        raise BundleError(field, f"the arrays {wanted}, as many rows as ends", found)
    rows_T, ends_T, data = tensors["rows"], tensors["ends"], tensors["data"]
    lengths_T = np.diff(ends_T, prepend=0)
    if not len(rows_T) or (lengths_T <= 0).any() or ends_T[-1] != len(data) or (np.diff(rows_T) <= 0).any():
        raise BundleError(field, "ascending rows, and ends that fill the data", "others")
    return Thumbnails(rows_T, ends_T, data)


def _evenly_spaced(count: int, limit: int) -> np.ndarray:
    """int64: at most ``limit`` of ``0 .. count - 1``, ascending."""
    kept = min(count, limit)
    return np.arange(kept, dtype=np.int64) * count // max(1, kept)


def _encode(image_HWC: np.ndarray) -> bytes:
    import simplejpeg  # imported late: who only reads a bundle needs neither
    from PIL import Image

    grey = image_HWC.shape[2] == 1
    picture = Image.fromarray(np.ascontiguousarray(image_HWC[:, :, 0] if grey else image_HWC))
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    small = np.asarray(picture)
    pixels = np.ascontiguousarray(small[:, :, None] if grey else small)
    return bytes(simplejpeg.encode_jpeg(pixels, _QUALITY, "GRAY" if grey else "RGB", "444", False))
