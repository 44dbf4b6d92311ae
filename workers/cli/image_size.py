"""Sizes of images on the command line: ``64``, or ``96x64`` for width x height."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from generator.spec.image_size import ImageSize

_LARGEST = 512  # pixels a side, as of sources


class Size(click.ParamType):  # type: ignore[type-arg]
    """An ``ImageSize``, of sides from 8 to ``largest`` pixels. Raises ``SpecError`` naming the option."""

    name = "size"

    def __init__(self, largest: int = _LARGEST) -> None:
        self._largest = largest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ImageSize:  # noqa: ARG002
        """``value``: the text, a side, or a size."""
        from generator.spec.image_size import ImageSize, parse_size

        if isinstance(value, ImageSize):
            return value
        field = "size" if param is None or param.name is None else param.name
        return parse_size(str(value), field=field, largest=self._largest)
