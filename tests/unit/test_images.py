"""Image files: pixels survive, bytes repeat, and every file says that it is synthetic."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from generator.errors import IntegrityError
from generator.images import decode_image, extension, image_encoder, is_marked_synthetic
from generator.spec import JpegSettings, PngSettings

SETTINGS = [
    PngSettings(),
    PngSettings(level=0),
    JpegSettings(),
    JpegSettings(quality=60, subsampling="4:2:0"),
]

images = st.builds(
    lambda seed, size, channels: np.random.default_rng(seed).integers(0, 256, (size, size, channels), dtype=np.uint8),
    seed=st.integers(0, 1000),
    size=st.integers(8, 40),
    channels=st.sampled_from([1, 3]),
)


@given(images, st.sampled_from([0, 6, 9]))
def test_png_keeps_every_pixel(image: np.ndarray, level: int) -> None:
    data = image_encoder(PngSettings(level=level), 1)(image)
    assert np.array_equal(decode_image(data, field="image"), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_keeps_smooth_images_nearly(channels: int) -> None:
    ramp = np.linspace(0, 255, 32)[:, None, None] * np.ones((32, 32, channels))
    found = decode_image(image_encoder(JpegSettings(), 1)(ramp.astype(np.uint8)), field="image")
    assert found.shape == (32, 32, channels)
    assert np.abs(found.astype(int) - ramp.astype(np.uint8)).max() <= 6


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_file_is_marked_and_repeats(settings: PngSettings | JpegSettings, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, channels), dtype=np.uint8)
    first, again = (image_encoder(settings, 1)(image) for _ in range(2))
    assert first == again
    assert is_marked_synthetic(first)
    assert b"recipe_version 1" in first
    with Image.open(io.BytesIO(first)) as opened:
        assert opened.format == settings.format.upper()
        opened.verify()


def test_a_file_without_the_mark_is_told_apart() -> None:
    for file_format in ("PNG", "JPEG"):
        out = io.BytesIO()
        Image.new("L", (8, 8)).save(out, file_format)
        assert not is_marked_synthetic(out.getvalue())


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + b"\0" * 50])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="sample"):
        decode_image(data, field="sample")


def test_extensions_are_what_webdataset_readers_know() -> None:
    assert (extension("png"), extension("jpeg")) == ("png", "jpg")
