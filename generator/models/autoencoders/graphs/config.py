"""The configuration of an imported network that is a graph. Importing this file does not import torch."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

from pydantic import Field, model_validator

from generator.models.autoencoders.graphs.graph import LABEL, NetworkGraph
from generator.models.autoencoders.graphs.shapes import Shape
from generator.models.autoencoders.image_config import ImageConfig

MAX_SIDE = 1024  # pixels
MAX_CODE = 65_536  # numbers

Side = Annotated[int, Field(ge=8, le=MAX_SIDE, strict=True)]


class GraphConfig(ImageConfig):
    """A decoder, and an encoder if there is one, as graphs.

    ``decoder``: its inputs are ``code``, of the shape of a code, and ``label`` if it draws classes (``classes`` of
    them); it gives an image. ``encoder``: its input is ``image``; it gives a code. Images have values in [0, 1].
    """

    family: Literal["graph"] = "graph"
    size: Side
    image_width: Side | None = None
    channels: Literal[1, 3]
    latent_dim: Annotated[int, Field(ge=1, le=MAX_CODE, strict=True)]
    classes: Annotated[int, Field(ge=0, le=65_536, strict=True)] = 0
    decoder: NetworkGraph
    encoder: NetworkGraph | None = None

    @property
    def code_shape(self) -> Shape:
        """(D), or (C, h, w)."""
        return next((entry.shape for entry in self.decoder.inputs if entry.name == "code"), ())

    @model_validator(mode="after")
    def _check_interfaces(self) -> GraphConfig:
        width, height = self.image_size
        code, image = self.code_shape, (self.channels, height, width)
        if len(code) not in (1, 3) or prod(code) != self.latent_dim:
            raise ValueError(f"a code of {self.latent_dim} numbers, flat or (channels, height, width), not {code}")
        label: dict[str, Shape] = {LABEL: ()} if self.classes else {}
        try:
            self.decoder.check_interface(image, code=code, **label)
        except ValueError as error:
            raise ValueError(f"a decoder with {error}") from None
        if self.encoder is not None:
            try:
                self.encoder.check_interface(code, image=image)
            except ValueError as error:
                raise ValueError(f"an encoder with {error}") from None
        return self
