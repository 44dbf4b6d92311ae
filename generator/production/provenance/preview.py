"""The preview of a build: a contact sheet of some of its images, itself marked as synthetic.

Labelled: one row per class, with its name at the left. Unlabelled: a grid. Small images are enlarged by integer
factors without interpolation, so that the stored pixels are visible; large ones are reduced by integer factors.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from generator.production.images import image_encoder
from generator.spec.recipe import JpegSettings

ROWS, PER_ROW, GRID_SIDE = 10, 10, 8
MIN_CELL, MAX_CELL = 48, 192  # pixels

_GAP, _MARGIN, _MAX_TITLE_CHARS = 6, 20, 18
_BACKGROUND, _BORDER_COLOUR, _TEXT_COLOUR = (250, 250, 247), (218, 218, 212), (58, 58, 56)

Row = tuple[str, list[np.ndarray]]


def preview_bytes(
    samples: Iterable[tuple[np.ndarray, int | None]],
    classes: tuple[str, ...],
    recipe_version: int,
    build_id: str | None = None,
) -> bytes:
    """A contact sheet as a marked JPEG, from (image uint8 HWC of C in {1, 3}, label or ``None``); at least one sample.

    The first ``PER_ROW`` images of the first ``ROWS`` classes that occur. Without classes, the first
    ``GRID_SIDE`` squared images. ``build_id``: the build that its mark names, if any.
    """
    rows = _class_rows(samples, classes) if classes else _grid_rows(samples)
    return image_encoder(JpegSettings(quality=92), recipe_version, build_id)(_contact_sheet(rows))


def _class_rows(samples: Iterable[tuple[np.ndarray, int | None]], classes: tuple[str, ...]) -> list[Row]:
    found: dict[int, list[np.ndarray]] = {}
    for image_HWC, label in samples:
        if label is not None and len(row := found.setdefault(label, [])) < PER_ROW:
            row.append(image_HWC)
    return [(_row_title(classes[label], label), found[label]) for label in sorted(found)[:ROWS]]


def _grid_rows(samples: Iterable[tuple[np.ndarray, int | None]]) -> list[Row]:
    images = [image_HWC for (image_HWC, _), _ in zip(samples, range(GRID_SIDE * GRID_SIDE), strict=False)]
    return [("", images[start : start + GRID_SIDE]) for start in range(0, len(images), GRID_SIDE)]


def _contact_sheet(rows: list[Row]) -> np.ndarray:
    cell_w, cell_h = _scale_image(rows[0][1][0]).size
    font = ImageFont.load_default(size=15)
    names_w = round(max(font.getlength(name) for name, _ in rows))
    left = _MARGIN + (names_w + 2 * _GAP if names_w else 0)
    columns = max(len(images) for _, images in rows)
    size = (left + columns * (cell_w + _GAP) - _GAP + _MARGIN, len(rows) * (cell_h + _GAP) - _GAP + 2 * _MARGIN)
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for row, (name, images) in enumerate(rows):
        top = _MARGIN + row * (cell_h + _GAP)
        draw.text((left - 2 * _GAP, top + cell_h // 2), name, fill=_TEXT_COLOUR, font=font, anchor="rm")
        for column, image_HWC in enumerate(images):
            x = left + column * (cell_w + _GAP)
            draw.rectangle((x - 1, top - 1, x + cell_w, top + cell_h), outline=_BORDER_COLOUR)
            sheet.paste(_scale_image(image_HWC), (x, top))
    return np.array(sheet)


def _scale_image(image_HWC: np.ndarray) -> Image.Image:
    """The image, enlarged or reduced by a whole factor that its longer side decides."""
    side = max(image_HWC.shape[:2])
    scale = -(-MIN_CELL // side)
    image_HWC = image_HWC.repeat(scale, axis=0).repeat(scale, axis=1)
    cell = Image.fromarray(image_HWC if image_HWC.shape[2] == 3 else image_HWC.repeat(3, axis=2))
    return cell.reduce(-(-side // MAX_CELL))


def _row_title(name: str, label: int) -> str:
    """``name`` in ASCII, as the bundled font has no other characters: without accents, or replaced by the label."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))
    if not plain.isascii():
        return f"class {label}"
    return plain if len(plain) <= _MAX_TITLE_CHARS else f"{plain[: _MAX_TITLE_CHARS - 1]}..."
