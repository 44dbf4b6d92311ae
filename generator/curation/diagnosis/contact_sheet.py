"""Contact sheets: PNG files with named rows of small images, marked as synthetic."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from generator.production.images import image_encoder
from generator.spec.recipe import RECIPE_VERSION, PngSettings

BACKGROUND, FOREGROUND, FRAME, HIGHLIGHT = (250, 250, 247), (58, 58, 56), (218, 218, 212), (213, 94, 0)
_GAP, _MARGIN, _HEAD, _CELL, _NAME_CHARS = 8, 22, 40, 48, 18


@dataclass(frozen=True, eq=False)
class SheetRow:
    """One row: its name, and groups of uint8 HWC images that are drawn close together.

    ``highlighted``: (group, image) positions that get a thick orange frame.
    """

    name: str
    groups: list[list[np.ndarray]]
    highlighted: frozenset[tuple[int, int]] = field(default_factory=frozenset)


def sheet_png(rows: list[SheetRow], title: str) -> bytes:
    """The rows below a title, as PNG bytes. Needs at least one row with an image; all images have one shape."""
    height, width = rows[0].groups[0][0].shape[:2]
    scale = -(-_CELL // max(height, width))
    cell_h, cell_w = height * scale, width * scale
    font, head = ImageFont.load_default(size=15), ImageFont.load_default(size=18)
    names = max((round(font.getlength(_ascii(row.name))) for row in rows), default=0)
    left = _MARGIN + (names + 12 if names else 0)
    widest = max(sum(len(group) * (cell_w + 2) + _GAP for group in row.groups) for row in rows)
    right = max(left + widest, 2 * _MARGIN + round(head.getlength(title))) + _MARGIN
    sheet = Image.new("RGB", (right, _MARGIN + _HEAD + len(rows) * (cell_h + _GAP) + _MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), title, fill=FOREGROUND, font=head)
    for row_index, row in enumerate(rows):
        top = _MARGIN + _HEAD + row_index * (cell_h + _GAP)
        draw.text((left - 12, top + cell_h // 2), _ascii(row.name), fill=FOREGROUND, font=font, anchor="rm")
        _draw_row(sheet, draw, row, (left, top), scale)
    return image_encoder(PngSettings(), RECIPE_VERSION)(np.array(sheet))


def _draw_row(sheet: Image.Image, draw: ImageDraw.ImageDraw, row: SheetRow, at: tuple[int, int], scale: int) -> None:
    x, top = at
    for number, group in enumerate(row.groups):
        for position, image_HWC in enumerate(group):
            enlarged = image_HWC.repeat(scale, axis=0).repeat(scale, axis=1)
            height, width = enlarged.shape[:2]
            colour, thick = (HIGHLIGHT, 3) if (number, position) in row.highlighted else (FRAME, 1)
            sheet.paste(Image.fromarray(enlarged if enlarged.shape[2] == 3 else enlarged.repeat(3, axis=2)), (x, top))
            draw.rectangle((x - 1, top - 1, x + width, top + height), outline=colour, width=thick)
            x += width + 2
        x += _GAP


def _ascii(name: str) -> str:
    """Pillow's default font has few glyphs besides ASCII."""
    plain = name.encode("ascii", "replace").decode()
    return plain if len(plain) <= _NAME_CHARS else f"{plain[: _NAME_CHARS - 3]}..."
