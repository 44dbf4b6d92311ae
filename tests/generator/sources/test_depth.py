"""Pixels of more than 8 bits: one scale for the whole source."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generator.errors import SourceError
from generator.sources import Source, load_source
from generator.spec.reading import Reading

RNG = np.random.default_rng(0)


def deep_png(path: Path, values: np.ndarray) -> None:
    """A PNG with 16 bits a channel: ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``."""
    height, width = values.shape[:2]
    colour_type = {2: 0, 3: {3: 2, 4: 6}.get(values.shape[-1], 0)}[values.ndim]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def read(root: Path, white: float | None = None, black: float | None = None) -> Source:
    return load_source(str(root), size=16, reading=Reading(white=white, black=black))


def eight_bit(values: np.ndarray, white: float) -> np.ndarray:
    return np.rint(np.clip(values / white, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_fewest_bits_that_hold_all_values(tmp_path: Path, bits: int) -> None:
    values = RNG.integers(0, 2**bits, (4, 16, 16))
    values[2] //= 8  # a dark picture stays dark
    values[3, 0, 0] = 2**bits - 1
    for number, each in enumerate(values):
        Image.fromarray(each.astype(np.uint16)).save(tmp_path / f"{number}.png")
    source = read(tmp_path)
    np.testing.assert_array_equal(source.images_NHWC[..., 0], eight_bit(values, 2**bits - 1))
    assert source.images_NHWC[2].max() <= 32
    assert source.facts.reading.white == 2**bits - 1
    assert f"{2**bits - 1:g} is white ({bits} bits)" in " ".join(source.facts.notices)


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_of_twelve_bits(tmp_path: Path, channels: int) -> None:
    values = RNG.integers(0, 4096, (3, 16, 16, channels))
    for opaque in (65535, 4095):
        values[..., 3:] = opaque
        for number, each in enumerate(values):
            deep_png(tmp_path / f"{number}.png", each)
        source = read(tmp_path)
        assert source.facts.reading.white == 4095
        np.testing.assert_array_equal(source.images_NHWC, eight_bit(values[..., :3], 4095))
    np.testing.assert_array_equal(read(tmp_path, white=4095).images_NHWC, source.images_NHWC)


def test_colour_of_sixteen_bits_in_tiff_and_png_keeps_its_upper_byte(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (2, 16, 16, 3))
    for number, each in enumerate(values):
        deep_png(tmp_path / f"{number}.png", each)
    np.testing.assert_array_equal(read(tmp_path).images_NHWC, values >> 8)


def test_floats_of_one_source_share_their_range(tmp_path: Path) -> None:
    """Each picture on its own would be taken for fractions, or for levels."""
    levels = RNG.integers(2, 256, (3, 16, 16)).astype(np.float32)
    levels[1] = RNG.random((16, 16)) > 0.5
    for number, each in enumerate(levels):
        Image.fromarray(each).save(tmp_path / f"{number}.tif")
    source = read(tmp_path)
    assert source.facts.reading.white == 255
    np.testing.assert_array_equal(source.images_NHWC[..., 0], levels)
    for number, each in enumerate(levels):
        Image.fromarray(each / 255).save(tmp_path / f"{number}.tif")
    fractions = read(tmp_path)
    assert fractions.facts.reading.white == 1
    np.testing.assert_array_equal(fractions.images_NHWC, source.images_NHWC)


def test_fractions_beside_integers_are_not_guessed(tmp_path: Path) -> None:
    Image.fromarray(RNG.random((16, 16)).astype(np.float32)).save(tmp_path / "a.tif")
    Image.fromarray(RNG.integers(0, 4096, (16, 16)).astype(np.uint16)).save(tmp_path / "b.tif")
    with pytest.raises(SourceError, match="images of one scale"):
        read(tmp_path)


def test_masks_of_zero_and_one(tmp_path: Path) -> None:
    values = RNG.integers(0, 2, (3, 16, 16))
    np.savez(tmp_path / "masks.npz", images=values)
    np.testing.assert_array_equal(read(tmp_path / "masks.npz").images_NHWC[..., 0], values * 255)


def test_a_white_that_no_image_needs_is_said(tmp_path: Path) -> None:
    for name in "ab":
        Image.fromarray(RNG.integers(0, 16, (16, 16)).astype(np.uint8)).save(tmp_path / f"{name}.png")
    source = read(tmp_path, white=16)
    assert source.facts.reading.white is None
    assert "--white has no effect: no image has more than 8 bits" in source.facts.notices


def test_white_as_zero_with_sixteen_bits_is_refused(tmp_path: Path) -> None:
    """Pillow inverts it with 8 bits, and not with 16."""
    for name in "ab":
        path = tmp_path / f"{name}.tif"
        Image.fromarray(RNG.integers(0, 65536, (16, 16)).astype(np.uint16)).save(path)
        data = bytearray(path.read_bytes())
        at = struct.unpack_from("<I", data, 4)[0]
        for entry in range(struct.unpack_from("<H", data, at)[0]):
            place = at + 2 + 12 * entry
            if struct.unpack_from("<H", data, place)[0] == 262:
                struct.pack_into("<H", data, place + 8, 0)
        path.write_bytes(bytes(data))
    with pytest.raises(SourceError, match="white as 0"):
        read(tmp_path)


def test_integers_of_thirty_two_bits(tmp_path: Path) -> None:
    values = RNG.integers(0, 256, (2, 16, 16)).astype(np.int32)
    for number, each in enumerate(values):
        Image.fromarray(each).save(tmp_path / f"{number}.tif")
    np.testing.assert_array_equal(read(tmp_path).images_NHWC[..., 0], values)
    Image.fromarray(values[0] + 70_000).save(tmp_path / "0.tif")
    with pytest.raises(SourceError, match="at most 16 bits") as refused:
        read(tmp_path)
    assert "--white" in refused.value.hint
    assert read(tmp_path, white=80_000).images_NHWC[0].min() >= 223


def test_negative_values_must_be_stated(tmp_path: Path) -> None:
    values = RNG.uniform(-1, 1, (2, 16, 16)).astype(np.float32)
    for number, each in enumerate(values):
        Image.fromarray(each).save(tmp_path / f"{number}.tif")
    with pytest.raises(SourceError, match="pixels of at least 0") as refused:
        read(tmp_path)
    assert "--black" in refused.value.hint
    source = read(tmp_path, white=1, black=-1)
    np.testing.assert_array_equal(source.images_NHWC[..., 0], eight_bit(values.astype(np.float64) + 1, 2))


def test_a_stated_white_clips(tmp_path: Path) -> None:
    values = np.array([[0, 1000], [2000, 4000]], dtype=np.uint16).repeat(8, 0).repeat(8, 1)
    for name in "ab":
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    assert np.unique(read(tmp_path, white=2000).images_NHWC).tolist() == [0, 128, 255]


def test_what_is_not_finite_is_a_broken_image(tmp_path: Path) -> None:
    values = RNG.random((3, 16, 16)).astype(np.float32)
    values[1, 3, 3] = np.nan
    for number, each in enumerate(values):
        Image.fromarray(each).save(tmp_path / f"{number}.tif")
    with pytest.raises(SourceError, match=r"1\.tif: .*not finite"):
        read(tmp_path)
    assert len(load_source(str(tmp_path), size=16, skip_bad=True)) == 2


def test_eight_bits_beside_deeper_pixels_are_as_they_were(tmp_path: Path) -> None:
    shallow = RNG.integers(0, 256, (16, 16)).astype(np.uint8)
    Image.fromarray(shallow).save(tmp_path / "a.png")
    Image.fromarray(shallow.astype(np.uint16) * 4).save(tmp_path / "b.png")
    source = read(tmp_path)
    np.testing.assert_array_equal(source.images_NHWC[0, ..., 0], shallow)
    np.testing.assert_array_equal(source.images_NHWC[1, ..., 0], eight_bit(shallow * 4.0, 1023))


@pytest.mark.parametrize(("white", "black"), [(0.0, None), (-1.0, None), (1.0, 1.0), (None, 0.0)])
def test_ranges_that_are_none(white: float | None, black: float | None) -> None:
    with pytest.raises(ValueError, match="white"):
        Reading(white=white, black=black)
