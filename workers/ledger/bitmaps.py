"""Sets of shard numbers as bitmaps, in Redis's bit order."""

from __future__ import annotations

from collections.abc import Iterable


def pack(numbers: Iterable[int]) -> bytes:
    """A bitmap with these bits set, in Redis's order: bit 0 is the highest bit of the first byte."""
    bitmap = bytearray()
    for number in numbers:
        byte, bit = divmod(number, 8)
        if byte >= len(bitmap):
            bitmap.extend(bytes(byte + 1 - len(bitmap)))
        bitmap[byte] |= 0x80 >> bit
    return bytes(bitmap)


def unpack(bitmap: bytes) -> list[int]:
    """The numbers of the bits that are set, ascending."""
    return [8 * byte + bit for byte, value in enumerate(bitmap) if value for bit in range(8) if value & (0x80 >> bit)]
