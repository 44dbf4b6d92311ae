"""Sheets of samples of a bundle, and of real images beside generated ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from generator.errors import SpecError
from generator.models.bundle import Bundle
from generator.production.decoding import ResidentDecoder
from generator.production.images import decode_image
from generator.production.provenance.preview import PER_ROW, ROWS, preview_bytes
from generator.sources import Source
from generator.spec.recipe import RECIPE_VERSION
from generator.spec.seeding import noise

_TITLE_HEIGHT = 34
_BACKGROUND, _FOREGROUND = (250, 250, 247), (58, 58, 56)

Samples = list[tuple[np.ndarray, int | None]]


def draw_samples(bundle: Bundle, path: Path, *, seed: int = 0) -> None:
    """Write samples of ``bundle``, one row per class, to a PNG or JPEG file. Raises ``SpecError``."""
    _save(_render_sheet(_generated_samples(bundle, seed), bundle.info.classes), path)


def samples_sheet(bundle: Bundle, *, seed: int = 0) -> bytes:
    """Samples of ``bundle``, one row per class, as a JPEG."""
    return preview_bytes(_generated_samples(bundle, seed), bundle.info.classes, RECIPE_VERSION)


def draw_source(source: Source, path: Path) -> None:
    """Write images of ``source``, one row per class, to a PNG or JPEG file. Raises ``SpecError``."""
    _save(_render_sheet(_real_samples(source), source.class_names), path)


def draw_real_and_generated(source: Source, bundle: Bundle, path: Path, *, seed: int = 0) -> None:
    """Write real images (left) and samples of ``bundle`` (right), one row per class, to a PNG or JPEG file.

    Raises ``SpecError``.
    """
    sheets = (
        _render_sheet(_real_samples(source), bundle.info.classes),
        _render_sheet(_generated_samples(bundle, seed), bundle.info.classes),
    )
    _save(
        np.concatenate(
            [_add_title(sheet, title) for sheet, title in zip(sheets, ("real", "generated"), strict=True)], 1
        ),
        path,
    )


def _render_sheet(samples: Samples, classes: tuple[str, ...]) -> np.ndarray:
    return decode_image(preview_bytes(samples, classes, RECIPE_VERSION), field="preview")


def _real_samples(source: Source) -> Samples:
    labels_N = np.zeros(len(source), dtype=np.int64) if source.labels_N is None else source.labels_N
    rows = [row for label in range(ROWS) for row in np.flatnonzero(labels_N == label)[: _per_class(source.class_names)]]
    return [(source.images_NHWC[row], int(labels_N[row])) for row in rows]


def _generated_samples(bundle: Bundle, seed: int) -> Samples:
    rows = min(ROWS, max(1, len(bundle.info.classes)))
    labels_N = np.repeat(np.arange(rows), _per_class(bundle.info.classes))
    indices_N = np.arange(len(labels_N))
    drawn = noise(seed, indices_N, np.zeros_like(indices_N), bundle.latents.dims)
    z_ND = bundle.latents.sample(drawn, labels_N).z_BD.astype(np.float32)
    images_NHWC = ResidentDecoder(bundle, batch=len(z_ND), dtype="float32", device="cpu").decode(z_ND, labels_N)
    return [(image, int(label)) for image, label in zip(images_NHWC, labels_N, strict=True)]


def _per_class(classes: tuple[str, ...]) -> int:
    return PER_ROW if classes else PER_ROW * ROWS


def _add_title(sheet_HWC: np.ndarray, title: str) -> np.ndarray:
    title_bar = Image.new("RGB", (sheet_HWC.shape[1], _TITLE_HEIGHT), _BACKGROUND)
    font = ImageFont.load_default(size=20)
    ImageDraw.Draw(title_bar).text(
        (sheet_HWC.shape[1] // 2, _TITLE_HEIGHT - 4), title, fill=_FOREGROUND, font=font, anchor="ms"
    )
    return np.concatenate([np.array(title_bar), sheet_HWC])


def _save(sheet_HWC: np.ndarray, path: Path) -> None:
    try:
        Image.fromarray(sheet_HWC).save(path)
    except (OSError, ValueError) as refused:
        raise SpecError("picture", "a writable .png or .jpg path", f"{path} ({refused})") from refused
