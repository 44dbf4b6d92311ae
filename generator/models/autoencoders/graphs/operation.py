"""What all operations of a graph have in common. Does not import torch.

Legend: shapes leave out the batch, which every value has as its first axis (a ``constant`` has a batch of one); axes
are counted from 0 without it. An image is (channels, height, width). Unless stated otherwise, operations are those of
PyTorch of the same name.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

from pydantic import Field

from generator.models.autoencoders.graphs.shapes import (
    MAX_RANK,
    Shape,
)
from generator.spec.canonical import FrozenModel
from generator.spec.patterns import pattern

Name = Annotated[
    str,
    Field(
        pattern=pattern(
            r"^[A-Za-z_][A-Za-z0-9_]{0,119}$", "letters, digits and _, beginning with no digit; at most 120"
        )
    ),
]


Count = Annotated[int, Field(ge=1, le=65_536, strict=True)]


Kernel = Annotated[int, Field(ge=1, le=63, strict=True)]


Step = Annotated[int, Field(ge=1, le=64, strict=True)]


Padding = Annotated[int, Field(ge=0, le=63, strict=True)]


Axis = Annotated[int, Field(ge=0, lt=MAX_RANK, strict=True)]


Epsilon = Annotated[float, Field(ge=0.0, le=1.0)]


class Operation(FrozenModel):
    """One node: ``name`` of its value, and the names of its ``inputs`` (nodes before it, or inputs of the graph)."""

    name: Name
    inputs: tuple[Name, ...]

    @abstractmethod
    def output_shape(self, *inputs: Shape) -> Shape:
        """The shape of the value. Raises ``ValueError``, which says what is expected, if the inputs do not fit."""

    def tensors(self, *inputs: Shape) -> dict[str, Shape]:
        """The shapes of the weights, by name."""
        return {}


class OneInput(Operation):
    """A node with one input."""

    inputs: tuple[Name]


class TwoInputs(Operation):
    """A node with two inputs."""

    inputs: tuple[Name, Name]


def check_rank(shape: Shape) -> None:
    if not shape:
        raise ValueError("a value with at least one axis, not a single number")
