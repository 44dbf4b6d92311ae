"""The PNG encoder: rows filtered by numpy, many images at a time; deflated by ISA-L; with an XMP packet.

W3C, "Portable Network Graphics Specification (Third Edition)", 2025: chunks in 5, filters in 9.2, ``iTXt`` in 11.3.3.

[measured: 64 x 64 RGB, smooth with a little noise: Paeth's filter for all rows and ISA-L at level 1 take 105
microseconds per image; Pillow at level 6 takes 440, and its files are 0.5% smaller. The average filter takes 46
microseconds, and its files are 10% larger. zlib at levels 6 and 9 makes filtered images no smaller than ISA-L does.]
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import final

import numpy as np
from isal import isal_zlib

from generator.production.images.encoder import ImageEncoder

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NONE, _AVERAGE, _PAETH = 0, 3, 4  # filter types
_GREY, _RGB = 0, 2  # colour types
_TILE_VALUES = 65_536  # values processed at a time, so that intermediate results stay in the processor cache
_KEYWORD = b"XML:com.adobe.xmp"


@final
class PngEncoder(ImageEncoder):
    """``level`` as in ``PngSettings``; ``packet`` is the XMP packet."""

    def __init__(self, level: int, packet: bytes) -> None:
        self._filter = _filter_type(level)
        self._deflate = _compressor(level)
        self._xmp_chunk = _chunk(
            b"iTXt", _KEYWORD + bytes(5) + packet
        )  # not compressed, no language, no translated keyword

    def encode_many(self, images_BHWC: np.ndarray) -> list[bytes]:
        _, height, width, channels = images_BHWC.shape
        colour = _GREY if channels == 1 else _RGB
        header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
        start, end = _SIGNATURE + header + self._xmp_chunk, _chunk(b"IEND", b"")
        return [
            b"".join((start, _chunk(b"IDAT", self._deflate(rows_HR)), end))
            for tile_BHWC in _tiles(images_BHWC)
            for rows_HR in self._filter_rows(tile_BHWC)
        ]

    def _filter_rows(self, images_BHWC: np.ndarray) -> np.ndarray:
        """Filtered rows, uint8 (B, H, 1 + W * C); the first byte of a row is its filter type."""
        count, height, width, channels = images_BHWC.shape
        rows_BHR = np.empty((count, height, 1 + width * channels), dtype=np.uint8)
        rows_BHR[:, :, 0] = self._filter
        flat_BHV = images_BHWC.reshape(count, height, width * channels)
        if self._filter == _NONE:
            rows_BHR[:, :, 1:] = flat_BHV
            return rows_BHR
        padded = np.zeros((count, height + 1, (width + 1) * channels), dtype=np.uint8)
        padded[:, 1:, channels:] = flat_BHV
        left, up = padded[:, 1:, :-channels], padded[:, :-1, channels:]
        if self._filter == _AVERAGE:
            predicted = (left & up) + ((left ^ up) >> 1)  # the floor of the mean, without a ninth bit
        else:
            predicted = _paeth(left, up, padded[:, :-1, :-channels])
        np.subtract(flat_BHV, predicted, out=rows_BHR[:, :, 1:])  # modulo 256, as the specification requires
        return rows_BHR


def _paeth(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Of three neighbours the nearest to left + up - corner; ties go to left, then up. All uint8."""
    wide = corner.astype(np.int16)
    by_left, by_up = up - wide, left - wide  # distance of the estimate from left and from up
    by_corner = np.abs(by_left + by_up)
    np.abs(by_left, out=by_left)
    np.abs(by_up, out=by_up)
    other = np.where(by_up <= by_corner, up, corner)
    return np.where((by_left <= by_up) & (by_left <= by_corner), left, other)


def _filter_type(level: int) -> int:
    if level == 0:
        return _NONE
    return _AVERAGE if level <= 3 else _PAETH


def _compressor(level: int) -> Callable[[np.ndarray], bytes]:
    """A function that compresses to a zlib stream; from level 7 on, the smaller of ISA-L's and zlib's output."""
    if level == 0:
        return lambda rows: zlib.compress(rows.data, 0)
    if level <= 6:
        return lambda rows: bytes(isal_zlib.compress(rows.data, 1))
    return lambda rows: min(bytes(isal_zlib.compress(rows.data, 1)), zlib.compress(rows.data, level), key=len)


def _tiles(images_BHWC: np.ndarray) -> Iterator[np.ndarray]:
    step = max(1, _TILE_VALUES // images_BHWC[0].size) if len(images_BHWC) else 1
    for begin in range(0, len(images_BHWC), step):
        yield images_BHWC[begin : begin + step]


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(data, zlib.crc32(kind))
    return b"".join((len(data).to_bytes(4, "big"), kind, data, check.to_bytes(4, "big")))
