"""Damaged bytes give a source or a SourceError, and no other exception."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from generator.errors import SourceError
from generator.sources import load_source

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
PICTURES = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "webp": "WEBP", "ppm": "PPM"}


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}
    Image.fromarray(PIXELS[0]).save(stream, kind, **options)
    return stream.getvalue()


def archive() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, images=PIXELS, labels=[0, 1, 0, 1], class_names=np.array(["a", "b"]))
    return stream.getvalue()


def table() -> bytes:
    stream = io.BytesIO()
    images = [{"bytes": encoded("PNG"), "path": "a.png"}] * 4
    made = pa.table({"image": images, "label": [0, 1, 0, 1]})
    parquet.write_table(made.replace_schema_metadata({b"huggingface": b'{"info": {"features": {}}}'}), stream)
    return stream.getvalue()


WHOLE = {suffix: encoded(kind) for suffix, kind in PICTURES.items()} | {"npz": archive(), "parquet": table()}


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A few bytes changed, and possibly truncated."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(0, 6))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])


@pytest.mark.parametrize("suffix", WHOLE)
def test_damaged_bytes_give_a_source_or_a_source_error(suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"damaged.{suffix}"
        (Path(folder) / "whole.png").write_bytes(WHOLE["png"])
        location = folder if suffix in PICTURES else str(path)

        @settings(max_examples=60, deadline=None)
        @given(damaged(WHOLE[suffix]))
        def check(content: bytes) -> None:
            path.write_bytes(content)
            try:
                source = load_source(location, size=16)
            except SourceError:
                return
            assert source.images_NHWC.shape[1:3] == (16, 16)

        check()
