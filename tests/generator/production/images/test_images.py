"""Image files: pixels are preserved, bytes are reproducible, and every file is marked as synthetic."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from generator.errors import IntegrityError
from generator.production.images import (
    decode_image,
    extension,
    image_encoder,
    is_marked_synthetic,
    marked_build,
    xmp_packet,
)
from generator.production.images.fingerprints import encoder_fingerprints
from generator.spec.recipe import JpegSettings, PngSettings

SETTINGS = [
    PngSettings(),
    PngSettings(level=0),
    PngSettings(level=2),
    PngSettings(level=9),
    JpegSettings(),
    JpegSettings(quality=60, subsampling="4:2:0"),
]

images = st.builds(
    lambda seed, size, channels: np.random.default_rng(seed).integers(0, 256, (size, size, channels), dtype=np.uint8),
    seed=st.integers(0, 1000),
    size=st.integers(8, 40),
    channels=st.sampled_from([1, 3]),
)


@given(images, st.sampled_from([0, 1, 6, 9]))
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


@pytest.mark.parametrize("settings", SETTINGS)
def test_many_at_once_are_what_each_is_alone_in_any_thread(settings: PngSettings | JpegSettings) -> None:
    images_BHWC = np.random.default_rng(0).integers(0, 256, (40, 32, 24, 3), dtype=np.uint8)
    encode, found = image_encoder(settings, 1), list[list[bytes]]()
    threads = [threading.Thread(target=lambda: found.append(encode.encode_many(images_BHWC))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = [encode(np.asfortranarray(image)) for image in images_BHWC]
    assert all(files == alone for files in found)
    assert encode.encode_many(images_BHWC[:0]) == []


@pytest.mark.parametrize("level", [1, 6])
def test_png_chunks_are_those_of_the_specification(level: int) -> None:
    data = image_encoder(PngSettings(level=level), 1)(np.zeros((5, 7, 3), dtype=np.uint8))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    kinds, place = list[bytes](), 8
    while place < len(data):
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        body, check = data[place + 4 : place + 8 + size], data[place + 8 + size : place + 12 + size]
        assert zlib.crc32(body) == int.from_bytes(check, "big")
        kinds, place = [*kinds, kind], place + 12 + size
    assert kinds == [b"IHDR", b"iTXt", b"IDAT", b"IEND"]


def test_a_jpeg_begins_with_jfif_and_then_the_mark() -> None:
    data = image_encoder(JpegSettings(), 1)(np.zeros((8, 8, 3), dtype=np.uint8))
    assert data[:4] == b"\xff\xd8\xff\xe0"
    end = 4 + int.from_bytes(data[4:6], "big")
    assert data[end : end + 2] == b"\xff\xe1"
    size = int.from_bytes(data[end + 2 : end + 4], "big")
    assert data[end + 4 : end + 33] == b"http://ns.adobe.com/xap/1.0/\0"
    assert (
        data[end + 2 + size : end + 4 + size] == b"\xff\xdb"
    )  # quantisation tables, a segment that the encoder writes


def test_smooth_pictures_are_hardly_larger_than_pillow_makes_them() -> None:
    rough = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(rough).resize((64, 64), Image.Resampling.BICUBIC))
    out = io.BytesIO()
    Image.fromarray(smooth).save(out, "PNG", compress_level=6)
    mark = len(xmp_packet(1)) + 64
    assert len(image_encoder(PngSettings(), 1)(smooth)) <= 1.03 * len(out.getvalue()) + mark


def test_encoders_are_named_by_what_they_write() -> None:
    facts = encoder_fingerprints()
    assert facts.keys() == {"jpeg", "png"}
    assert facts == encoder_fingerprints.__wrapped__()


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


@pytest.mark.parametrize("settings", [PngSettings(), JpegSettings()])
def test_the_mark_names_system_and_build(settings: PngSettings | JpegSettings) -> None:
    """IPTC Photo Metadata Standard 2025.1: AISystemUsed and AISystemVersionUsed, both text."""
    pixels, build_id = np.zeros((8, 8, 3), dtype=np.uint8), "0123456789abcdef0123"
    data = image_encoder(settings, 2, build_id)(pixels)
    assert is_marked_synthetic(data)
    assert marked_build(data) == build_id
    (description,) = ElementTree.fromstring(xmp_packet(2, build_id).split(b"?>", 1)[1].rsplit(b"<?", 1)[0])[0]
    iptc = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
    assert description.get(f"{iptc}AISystemUsed") == "latentmill"
    assert description.get(f"{iptc}AISystemVersionUsed") == f"recipe_version 2, build {build_id}"
    assert marked_build(image_encoder(settings, 2)(pixels)) is None


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_files_are_decoded_to_pillows_pixels(subsampling: int, progressive: bool) -> None:
    rng = np.random.default_rng(subsampling)
    for height, width, channels, quality in ((1, 1, 3, 95), (64, 64, 1, 60), (33, 17, 3, 20), (96, 128, 3, 100)):
        walk = rng.normal(size=(height, width, channels)).cumsum(0).cumsum(1) * 3 + 128
        pixels = np.clip(walk, 0, 255).astype(np.uint8)
        out = io.BytesIO()
        shown = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
        shown.save(out, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
        with Image.open(io.BytesIO(out.getvalue())) as image:
            wanted = np.array(image).reshape(pixels.shape)
        found = decode_image(out.getvalue(), field="x")
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, wanted)


def test_a_jpeg_file_of_another_colour_space_is_decoded_too() -> None:
    out = io.BytesIO()
    Image.new("CMYK", (5, 4)).save(out, "JPEG")
    assert decode_image(out.getvalue(), field="x").shape == (4, 5, 4)


@pytest.mark.parametrize("end", [0.1, 0.5, 0.99])
def test_a_truncated_jpeg_file_is_refused(end: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data = image_encoder(JpegSettings(), 2)(pixels)
    with pytest.raises(IntegrityError, match="a PNG or JPEG image"):
        decode_image(data[: int(len(data) * end)], field="x")
