"""The options of readers, checked before anything is read. Imports no torch."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from generator.datasets.epoch_order import Uneven
from generator.errors import SpecError
from generator.spec.canonical import FrozenModel, validate
from generator.store import S3Settings

Stop = Literal["first", "last"]
Per = Literal["batch", "epoch"]


def _plain_integer(value: Any) -> Any:
    """Integers of other libraries (numpy) as ``int``; anything else as it is, for the field to refuse."""
    try:
        return value if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return value


def _plain_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


_Integer = Annotated[int, BeforeValidator(_plain_integer)]
_Text = Annotated[str, BeforeValidator(_plain_text)]


class OrderOptions(FrozenModel):
    """The order of samples and the share of one rank, as ``open_dataset`` and ``mix`` take them."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)

    seed: Annotated[_Integer, Field(ge=0, lt=2**63)]
    rank: _Integer | None
    world_size: _Integer | None
    batch_size: Annotated[_Integer, Field(ge=1)] | None
    uneven: Uneven


class OpenOptions(OrderOptions):
    """The options of ``open_dataset``. What says which recipe is read is checked where it is looked up."""

    url: _Text | None
    device: _Text
    map_style: bool
    s3: S3Settings | None
    shuffle: bool
    where: str | None
    transform: Callable[[Any], Any] | None
    soft_labels: bool
    provenance: bool
    cache: Annotated[Path, BeforeValidator(lambda value: Path(value) if isinstance(value, str) else value)] | None
    cache_bytes: Annotated[_Integer, Field(ge=1)]

    def check_map_style(self) -> None:
        """Raises ``SpecError`` for an option that says something about an order, which samples by index have not."""
        given = {name: getattr(self, name) for name in ("shuffle", "rank", "batch_size")}
        for name, value in given.items():
            if value is not None and value is not False:
                hint = "Give shuffle, ranks and batches to the sampler or DataLoader that reads the dataset."
                raise SpecError(name, "none with map_style=True", value, hint)


class MixOptions(OrderOptions):
    """The options of ``mix`` apart from its datasets and their weights."""

    per: Per
    stop: Stop
    length: Annotated[_Integer, Field(ge=1)] | None


def check_open_options(options: dict[str, Any]) -> OpenOptions:
    """Raises ``SpecError`` naming the first option that cannot be."""
    return validate(OpenOptions, options, field="", error=SpecError)


def check_mix_options(options: dict[str, Any]) -> MixOptions:
    """Raises ``SpecError`` naming the first option that cannot be."""
    return validate(MixOptions, options, field="", error=SpecError)
