"""TAESD, the tiny autoencoders of latent diffusion models (github.com/madebyollin/taesd), from their state dicts.

The variant is recognised by the names and shapes of the tensors: all have convolutions of 3 x 3 and blocks of three of
them around a skip; variants differ in the channels of a code, in a pooled norm in some blocks (FLUX.2), and in the
number of halvings (8 x, or 32 x for Sana's autoencoder). Images are in [0, 1], codes as the encoder gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from generator.errors import SpecError
from generator.models.autoencoders.graphs.operations import Binary, GroupNorm, Reduce
from generator.models.autoencoders.margins import Margins, margins_to
from generator.models.converters.builder import BuiltGraph, GraphBuilder
from generator.models.converters.rewrites import simplify
from generator.models.converters.weights import Weights
from generator.spec.image_size import AnySize, as_size

_POOL_GROUPS = 4
_CLAMP = 3.0  # codes are restricted softly to (-3, 3)


@dataclass(frozen=True)
class _Variant:
    """The layers of an encoder or decoder in their order: c conv, s conv of stride 2, r relu, b block, u upsampling,
    m soft clamp; a letter is one numbered module of the state dict."""

    layers: str

    def names(self) -> set[str]:
        """The first tensor of every numbered module that has tensors."""
        first = {"c": "weight", "s": "weight", "b": "conv.0.weight"}
        return {f"{number}.{first[kind]}" for number, kind in enumerate(self.layers) if kind in first}


_ENCODERS = (_Variant("cb" + "sbbb" * 3 + "c"), _Variant("srsrb" + "sbbb" * 3 + "c"))
_DECODERS = (_Variant("mcr" + "bbbuc" * 3 + "bc"), _Variant("mcr" + "bbbuc" * 5 + "bc"))


def convert_taesd(
    encoder: Mapping[str, np.ndarray] | None, decoder: Mapping[str, np.ndarray], size: AnySize, *, grey: bool = False
) -> tuple[BuiltGraph | None, BuiltGraph]:
    """Encoder and decoder for images of ``size``: a side, or (width, height), in pixels.

    Sides that the autoencoder cannot divide get margins, which are cut out of decoded images. ``grey``: for grey
    images, which are encoded as three equal channels; decoded channels are averaged. Raises ``SpecError`` naming the
    tensor that does not fit.
    """
    weights = Weights(decoder, field="decoder")
    variant = _recognise(weights, _DECODERS)
    factor = 2 ** variant.layers.count("u")
    size = as_size(size)
    margins = margins_to(size, factor)
    around = margins.around(size)
    code = (weights.shape("1.weight")[1], around.height // factor, around.width // factor)
    decoded = _build(weights, variant, "decoder", grey, margins, code=code)
    if encoder is None:
        return None, decoded
    weights = Weights(encoder, field="encoder")
    image = (1 if grey else 3, size.height, size.width)
    return _build(weights, _recognise(weights, _ENCODERS), "encoder", grey, margins, image=image), decoded


def tiny_block(builder: GraphBuilder, x: str, weights: Weights, prefix: str, function: str = "relu") -> str:
    """Three convolutions and a skip; before them the pooled norm of FLUX.2's variant, if there are tensors of it."""
    if f"{prefix}.pool.0.weight" in weights:
        pooled = builder.conv(x, weights, f"{prefix}.pool.0")
        pooled = builder.norm(GroupNorm, pooled, weights, f"{prefix}.pool.1", groups=_POOL_GROUPS)
        pooled = builder.conv(builder.activation(pooled, "relu"), weights, f"{prefix}.pool.3")
        x = builder.add(Binary, pooled, x, op="add")
    h = builder.conv(x, weights, f"{prefix}.conv.0")
    for number in (2, 4):
        h = builder.conv(builder.activation(h, function), weights, f"{prefix}.conv.{number}")
    skip = builder.conv(x, weights, f"{prefix}.skip") if f"{prefix}.skip.weight" in weights else x
    return builder.activation(builder.add(Binary, h, skip, op="add"), "relu")


def soft_clamp(builder: GraphBuilder, x: str) -> str:
    """tanh(x / 3) * 3."""
    return builder.scale(builder.activation(builder.scale(x, 1.0 / _CLAMP), "tanh"), _CLAMP)


def _recognise(weights: Weights, variants: tuple[_Variant, ...]) -> _Variant:
    given = {name for name in weights.names if name.endswith((".conv.0.weight",)) or name.count(".") == 1}
    given = {name for name in given if name.endswith("weight")}
    for variant in variants:
        if variant.names() == given:
            return variant
    first = sorted(variants[0].names() ^ given)[0]
    hint = "for a model in diffusers' format, use `latentmill import diffusers DIR`"
    raise SpecError("weights", "the tensors of a known TAESD variant", f"others (first difference: {first})", hint)


def _build(
    weights: Weights, variant: _Variant, field: str, grey: bool, margins: Margins, **inputs: tuple[int, ...]
) -> BuiltGraph:
    builder = GraphBuilder(field, **inputs)
    x = next(iter(inputs))
    if field == "encoder":
        x = builder.extend(x, margins)
    if grey and field == "encoder":
        x = builder.concat(x, x, x, axis=0)
    for number, kind in enumerate(variant.layers):
        match kind:
            case "m":
                x = soft_clamp(builder, x)
            case "c" | "s":
                x = builder.conv(x, weights, str(number), stride=2 if kind == "s" else 1)
            case "r":
                x = builder.activation(x, "relu")
            case "b":
                x = tiny_block(builder, x, weights, str(number))
            case "u":
                x = builder.upsample(x, 2)
    weights.finish()
    if grey and field == "decoder":
        x = builder.add(Reduce, x, op="mean", axes=(0,))
    if field == "decoder":
        x = builder.cut(builder.clamp(x, 0.0, 1.0), margins)
    return simplify(builder.finish(x))
