"""Orientation, modes, transparency, bit depth and cropping of single images, through real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from generator.errors import SourceError
from generator.sources import load_source
from generator.sources.pixels.image import TargetShape, fit_image, open_image, strict_pillow

ORIENTATION = 0x0112
GREY_HW = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)

# EXIF 2.32, tag 274: the visual side of the stored row 0 and column 0. From the upright image to the stored one.
STORED = {
    1: lambda u: u,
    2: lambda u: u[:, ::-1],
    3: lambda u: u[::-1, ::-1],
    4: lambda u: u[::-1],
    5: lambda u: u.swapaxes(0, 1),
    6: lambda u: u[:, ::-1].swapaxes(0, 1),
    7: lambda u: u[::-1, ::-1].swapaxes(0, 1),
    8: lambda u: u[::-1].swapaxes(0, 1),
}


def read(path: Path, size: int, channels: int) -> np.ndarray:
    with strict_pillow(), open_image(path) as image:
        return fit_image(image, TargetShape(size, size, channels))


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_comes_out_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright_HWC = np.random.default_rng(0).integers(0, 256, (10, 17, 3), dtype=np.uint8)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright_HWC)))
    path = tmp_path / f"turned.{suffix}"
    if suffix == "tif":
        stored.save(path, tiffinfo={ORIENTATION: orientation})
    else:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        stored.save(path, exif=exif, lossless=True)
    np.testing.assert_array_equal(read(path, 10, 3), upright_HWC[:, 3:13])


def test_jpeg_orientation_turns_the_picture(tmp_path: Path) -> None:
    upright_HW = np.zeros((32, 32), dtype=np.uint8)
    upright_HW[:16] = 255
    for orientation, store in STORED.items():
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        path = tmp_path / f"{orientation}.jpg"
        Image.fromarray(np.ascontiguousarray(store(upright_HW))).save(path, exif=exif, quality=95)
        got_HW = read(path, 32, 1).astype(int)
        assert np.abs(got_HW - upright_HW).mean() < 3, orientation


def as_mode(mode: str) -> Image.Image:
    """The grey ramp in a Pillow mode."""
    grey = Image.fromarray(GREY_HW)
    if mode.startswith("I;16"):
        return Image.fromarray(GREY_HW.astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(GREY_HW.astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(GREY_HW.astype(np.float32) / 255)
    if mode == "CMYK":
        nothing = Image.new("L", grey.size)
        return Image.merge("CMYK", (nothing, nothing, nothing, Image.fromarray(255 - GREY_HW)))
    if mode == "P":
        palette = grey.copy()
        palette.putpalette([level for level in range(256) for _ in "RGB"])
        return palette
    if mode == "RGBa":
        return grey.convert("RGBA").convert("RGBa")
    if mode == "PA":
        return as_mode("P").convert("PA")
    return grey.convert(mode)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("L", "png"),
        ("L", "jpg"),
        ("L", "pgm"),
        ("LA", "png"),
        ("LA", "tif"),
        ("P", "png"),
        ("P", "tif"),
        ("PA", "tif"),
        ("RGB", "png"),
        ("RGB", "bmp"),
        ("RGBA", "png"),
        ("RGB", "webp"),
        ("CMYK", "tif"),
        ("YCbCr", "tif"),
        ("I;16", "png"),
        ("I;16", "tif"),
        ("I", "tif"),
        ("I", "pgm"),
        ("F", "tif"),
    ],
)
def test_one_grey_ramp_in_every_mode_is_one_grey_ramp(tmp_path: Path, mode: str, suffix: str, channels: int) -> None:
    path = tmp_path / f"ramp.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {"quality": 100} if suffix == "jpg" else {}
    as_mode(mode).save(path, **options)
    with Image.open(path) as image:
        assert image.mode == mode
    wanted = GREY_HW if channels == 1 else np.stack([GREY_HW] * 3, axis=-1)
    got = read(path, 8, channels)
    assert got.dtype == np.uint8
    assert got.shape == wanted.shape
    assert np.abs(got.astype(int) - wanted).max() <= 2


def test_every_mode_without_a_file_format_of_its_own() -> None:
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F", "HSV", "RGBX", "RGBa"):
        got = fit_image(as_mode(mode), TargetShape(8, 8, 3))
        assert got.shape == (8, 8, 3), mode
        if mode != "1":
            assert np.abs(got.astype(int) - GREY_HW[..., None]).max() <= 2, mode


def test_bilevel_is_black_and_white(tmp_path: Path) -> None:
    wanted_HW = (np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(wanted_HW).convert("1").save(tmp_path / "board.png")
    np.testing.assert_array_equal(read(tmp_path / "board.png", 8, 1), wanted_HW)


def test_sixteen_bits_keep_their_order_and_range(tmp_path: Path) -> None:
    values_HW = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values_HW).save(tmp_path / "deep.png")
    got_N = read(tmp_path / "deep.png", 8, 1).ravel().astype(int)
    assert (got_N[0], got_N[-1]) == (0, 255)
    assert (np.diff(got_N) > 0).all()


def test_floats_may_be_fractions_or_levels(tmp_path: Path) -> None:
    Image.fromarray(GREY_HW.astype(np.float32)).save(tmp_path / "levels.tif")
    np.testing.assert_array_equal(read(tmp_path / "levels.tif", 8, 1), GREY_HW)
    for wrong in (-1.0, 256.0, np.nan, np.inf):
        damaged_HW = GREY_HW.astype(np.float32)
        damaged_HW[3, 3] = wrong
        with pytest.raises(ValueError, match="outside"):
            fit_image(Image.fromarray(damaged_HW), TargetShape(8, 8, 1))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "L", "RGB"])
def test_what_is_transparent_is_white(tmp_path: Path, mode: str) -> None:
    """The left half is black and opaque, the right half would be black if it were not transparent."""
    alpha_HW = np.zeros((16, 16), dtype=np.uint8)
    alpha_HW[:, :8] = 255
    path = tmp_path / "half.png"
    if mode in ("LA", "RGBA"):
        image = Image.new(mode, (16, 16), 0)
        image.putalpha(Image.fromarray(alpha_HW))
        image.save(path)
    else:
        colours = {"P": 7, "L": 7, "RGB": (7, 0, 0)}
        image = Image.new(mode, (16, 16), 0)
        if mode == "P":
            image.putpalette([0, 0, 0] * 8)
        image.paste(colours[mode], (8, 0, 16, 16))
        image.save(path, transparency=colours[mode])
    for channels in (1, 3):
        np.testing.assert_array_equal(read(path, 16, channels).reshape(16, 16, -1)[..., 0], 255 - alpha_HW)


def test_the_middle_is_kept_and_pixels_of_the_right_size_are_untouched(tmp_path: Path) -> None:
    wide_HWC = np.random.default_rng(1).integers(0, 256, (24, 41, 3), dtype=np.uint8)
    Image.fromarray(wide_HWC).save(tmp_path / "wide.png")
    Image.fromarray(np.ascontiguousarray(wide_HWC.swapaxes(0, 1))).save(tmp_path / "tall.png")
    np.testing.assert_array_equal(read(tmp_path / "wide.png", 24, 3), wide_HWC[:, 8:32])
    np.testing.assert_array_equal(read(tmp_path / "tall.png", 24, 3), wide_HWC[:, 8:32].swapaxes(0, 1))


@pytest.mark.parametrize("size", [8, 20, 64, 128])
def test_resizing_keeps_a_smooth_picture_in_place(tmp_path: Path, size: int) -> None:
    """A ramp over the middle square of a wide picture is the same ramp at any size, shrunk or enlarged."""
    wide_HW = np.tile((np.arange(120) + 40).astype(np.uint8), (60, 1))
    Image.fromarray(wide_HW).save(tmp_path / "ramp.png")
    got_HW = read(tmp_path / "ramp.png", size, 1).astype(float)
    wanted_W = 40 + 30 + (np.arange(size) + 0.5) * (60 / size) - 0.5
    inner = slice(size // 8, -(size // 8))
    assert np.abs(got_HW - wanted_W)[:, inner].max() <= 1.5


def test_turned_photographs_have_their_upright_size(tmp_path: Path) -> None:
    """As phones store them: without a size, all images must have one after they are turned."""
    upright_HWC = np.repeat((np.indices((16, 24)).sum(axis=0) * 6).astype(np.uint8)[..., None], 3, axis=2)
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    Image.fromarray(upright_HWC).save(tmp_path / "a.png")
    Image.fromarray(np.ascontiguousarray(STORED[6](upright_HWC))).save(tmp_path / "b.jpg", exif=turned, quality=95)
    names = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    images = pa.array(
        [{"bytes": data, "path": None} for data in names], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    parquet.write_table(pa.table({"image": images}), tmp_path / "set.parquet")
    source = load_source(str(tmp_path / "set.parquet"))
    assert (source.size, source.facts.sizes) == ((24, 16), ((24, 16, 2),))
    assert abs(source.images_NHWC[0].astype(int) - source.images_NHWC[1]).mean() < 4


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_decompression_bomb_is_refused_at_its_header(tmp_path: Path) -> None:
    for side in (10_000, 20_000):  # Pillow warns about the first and raises for the second
        folder = tmp_path / str(side)
        folder.mkdir()
        Image.new("1", (side, side)).save(folder / "bomb.png")
        with pytest.raises(SourceError) as refused:
            load_source(str(folder), channels=1)
        assert refused.value.field == f"{side}/bomb.png"
        assert "pixels" in refused.value.expected


def test_only_picture_formats_are_opened(tmp_path: Path) -> None:
    """EPS would be passed to Ghostscript."""
    Image.new("RGB", (16, 16)).save(tmp_path / "other.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "drawing.eps")
    (tmp_path / "drawing.eps").rename(tmp_path / "drawing.png")
    with pytest.raises(SourceError, match=r"drawing\.png: .* no known image format"):
        load_source(str(tmp_path))
