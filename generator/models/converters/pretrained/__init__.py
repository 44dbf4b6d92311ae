"""The pretrained autoencoder of photographs that comes with latentmill (see README.md beside this file)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from generator.models.converters.builder import BuiltGraph
from generator.models.converters.taesd import convert_taesd
from generator.models.converters.weights import read_weights
from generator.spec.image_size import AnySize

_WEIGHTS = Path(__file__).with_name("taef2.safetensors")


def pretrained_graphs(size: AnySize, channels: int) -> tuple[BuiltGraph, BuiltGraph]:
    """(encoder, decoder) for images of ``size`` (a side, or width and height) and 1 (grey) or 3 (RGB) channels.

    A grey image is encoded as one of three equal channels; decoded channels are averaged. Sides that are no multiples
    of 8 get margins.
    """
    weights = _weights()
    encoder, decoder = convert_taesd(*weights, size, grey=channels == 1)
    assert encoder is not None
    return encoder, decoder


@cache
def _weights() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    tensors = read_weights(_WEIGHTS)
    encoder, decoder = (
        {name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}
        for part in ("encoder", "decoder")
    )
    return encoder, decoder
