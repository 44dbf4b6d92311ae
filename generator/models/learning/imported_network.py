"""An imported network: its graphs as a configuration, and their weights."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from generator.errors import SpecError
from generator.models.autoencoders.graphs.config import GraphConfig
from generator.models.autoencoders.image_config import size_fields
from generator.models.converters.builder import BuiltGraph
from generator.models.converters.pretrained import pretrained_graphs
from generator.spec.canonical import validate
from generator.spec.image_size import AnySize, as_size, check_sides


@dataclass(frozen=True, eq=False)
class ImportedNetwork:
    """``config`` and float32 weights, named as in ``build_decoder`` and ``build_encoder``; no encoder: ``None``."""

    config: GraphConfig
    decoder: dict[str, np.ndarray]
    encoder: dict[str, np.ndarray] | None = None


def join_graphs(encoder: BuiltGraph | None, decoder: BuiltGraph, classes: int = 0) -> ImportedNetwork:
    """The network of a decoder and, if there is one, an encoder. Raises ``SpecError`` if they do not fit together."""
    shapes = decoder.graph.shapes()
    channels, height, width = shapes[decoder.graph.output] if len(shapes[decoder.graph.output]) == 3 else (0, 0, 0)
    if channels not in (1, 3):
        got = " x ".join(map(str, shapes[decoder.graph.output]))
        raise SpecError("decoder", "an image of 1 or 3 channels at the end", got)
    fields = size_fields((width, height)) | {
        "channels": channels,
        "latent_dim": prod(shapes.get("code", ())),
        "classes": classes,
        "decoder": decoder.graph,
        "encoder": None if encoder is None else encoder.graph,
    }
    config = validate(GraphConfig, fields, field="network", error=SpecError)
    return ImportedNetwork(config, decoder.tensors, None if encoder is None else encoder.tensors)


def pretrained_network(size: AnySize, channels: int) -> ImportedNetwork:
    """The pretrained autoencoder of photographs, for images of ``size``: a side, or (width, height), in pixels.

    Raises ``SpecError`` for sides below 8 pixels or above 512.
    """
    check_sides(as_size(size))
    return join_graphs(*pretrained_graphs(size, channels))
