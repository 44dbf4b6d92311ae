"""Pictures that a bundle keeps of real images: a small sheet for lists, and held-out images beside reconstructions."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass

from PIL import Image

from generator.errors import BundleError, BundleMissing
from generator.models.bundle import BundleInfo
from generator.models.bundle.format import RECONSTRUCTIONS_FILE, THUMBNAILS_FILE
from generator.models.bundle.load import load_reconstructions, load_thumbnails
from generator.store.base import Store
from workers.server.pages.pictures import data_url

_COLUMNS, _ROWS, _CELL, _QUALITY = 5, 2, 44, 88
_MAX_SIDE = 128  # pixels of a stored picture: larger ones are not ours
_MAX_READ = 8 * 2**20  # bytes of thumbnails that are read for a sheet
_HELD_SHEETS = 500
_GROUND = (128, 128, 128)


@dataclass(frozen=True)
class Pair:
    """A held-out image and its reconstruction as ``data:``. ``error``: mean squared, for pixels in [0, 1]."""

    real: str
    decoded: str
    class_name: str | None
    error: float


def pairs_of(bundle: Store, info: BundleInfo) -> list[Pair]:
    """The reconstructions that a bundle keeps, ordered by class; none if it keeps none. Raises ``BundleError``,
    ``StoreError``."""
    kept = load_reconstructions(bundle, info)
    if kept is None:
        return []
    found = []
    for number, (label, error) in enumerate(zip(kept.labels_P.tolist(), kept.errors_P.tolist(), strict=True)):
        real, decoded = (data_url(each, "image/jpeg") for each in kept.pair(number))
        found.append(Pair(real, decoded, info.classes[label] if label >= 0 else None, error))
    return found


class SheetShelf:
    """The sheets that were made lately, by the digest of their bundle. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock, self._held = threading.Lock(), OrderedDict[str, bytes]()

    def get(self, bundle: Store, digest: str, info: BundleInfo) -> bytes:
        """A JPEG file of a few real images. Raises ``BundleMissing`` if the bundle keeps none that are small enough,
        ``BundleError``, ``StoreError``."""
        with self._lock:
            if (held := self._held.get(digest)) is not None:
                self._held.move_to_end(digest)
                return held
        made = _sheet(_some_pictures(bundle, info))
        with self._lock:
            self._held[digest] = made
            while len(self._held) > _HELD_SHEETS:
                self._held.popitem(last=False)
        return made


def has_sheet(info: BundleInfo) -> bool:
    """Whether ``SheetShelf`` makes a sheet of this bundle."""
    thumbnails = info.files.get(THUMBNAILS_FILE)
    return RECONSTRUCTIONS_FILE in info.files or (thumbnails is not None and thumbnails.size <= _MAX_READ)


def _some_pictures(bundle: Store, info: BundleInfo) -> list[bytes]:
    wanted = _COLUMNS * _ROWS
    if not has_sheet(info):
        raise BundleMissing("picture", "a bundle that keeps pictures of real images", "one without them")
    if (pairs := load_reconstructions(bundle, info)) is not None:
        return [pairs.pair(len(pairs) * number // wanted)[0] for number in range(min(wanted, len(pairs)))]
    thumbnails = load_thumbnails(bundle, info)
    assert thumbnails is not None
    rows = thumbnails.rows_T[:: max(1, len(thumbnails.rows_T) // wanted)][:wanted].tolist()
    return [data for row in rows if (data := thumbnails.find(row)) is not None]


def _sheet(files: list[bytes]) -> bytes:
    rows = -(-len(files) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _CELL, rows * _CELL), _GROUND)
    for number, data in enumerate(files):
        row, column = divmod(number, _COLUMNS)
        picture = _open(data)
        scale = _CELL / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        resized = picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)
        sheet.paste(resized, (column * _CELL + (_CELL - size[0]) // 2, row * _CELL + (_CELL - size[1]) // 2))
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def _open(data: bytes) -> Image.Image:
    """The pixels of a stored picture, which somebody else may have made. Raises ``BundleError``."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            if max(picture.size) > _MAX_SIDE:
                raise ValueError(f"{picture.width} x {picture.height} pixels")
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as broken:
        raise BundleError(
            "picture", f"a JPEG file of at most {_MAX_SIDE} pixels a side", f"{broken!r:.100}"
        ) from broken
