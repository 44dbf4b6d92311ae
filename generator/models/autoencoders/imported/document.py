"""Reads and checks the document that describes an imported decoder, and its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from generator.errors import SpecError
from generator.models.autoencoders.image_config import size_fields
from generator.models.autoencoders.imported.layers import MAX_LAYERS, MAX_SIDE, Layer, LayersConfig, layer_shapes
from generator.models.autoencoders.imported.network import LayersDecoder
from generator.spec.canonical import FrozenModel, read_json, validate

MAX_DOCUMENT_BYTES = 1024 * 1024


class ImportedLayer(FrozenModel):
    """One layer, and the prefix of its tensor names in the file of weights: ``<weights>.weight`` and so on."""

    layer: Layer
    weights: str | None = Field(default=None, max_length=500)


class DecoderDocument(FrozenModel):
    """The document of a decoder. ``layers``: as in ``LayersConfig``, each with an optional field ``weights``: the
    prefix of its tensor names, by default its number."""

    latent_dim: Annotated[int, Field(ge=1, le=512, strict=True)]
    output: Literal["sigmoid", "unit", "symmetric"] = "unit"
    layers: Annotated[tuple[dict[str, Any], ...], Field(min_length=1, max_length=MAX_LAYERS)]


def read_decoder(document: bytes, weights: Mapping[str, np.ndarray]) -> tuple[LayersConfig, dict[str, np.ndarray]]:
    """Configuration and float32 parameters, named as in ``LayersDecoder``. Raises ``SpecError``."""
    parsed = read_json(document, field="decoder", error=SpecError, limit=MAX_DOCUMENT_BYTES)
    described = validate(DecoderDocument, parsed, field="decoder", error=SpecError)
    layers, prefixes = list[Layer](), list[str]()
    for number, fields in enumerate(described.layers):
        layer_fields = {name: value for name, value in fields.items() if name != "weights"}
        imported = {"layer": layer_fields, "weights": fields.get("weights", str(number))}
        layer = validate(ImportedLayer, imported, field=f"decoder.layers.{number}", error=SpecError)
        layers.append(layer.layer)
        prefixes.append(layer.weights or str(number))
    config = _config(described, tuple(layers))
    return config, _match_tensors(config, prefixes, weights)


def _config(described: DecoderDocument, layers: tuple[Layer, ...]) -> LayersConfig:
    try:
        last = layer_shapes(described.latent_dim, layers)[-1]
    except ValueError as error:
        raise SpecError("decoder.layers", "layers that fit together", str(error)) from error
    if len(last) != 3 or last[0] not in (1, 3) or not all(8 <= side <= MAX_SIDE for side in last[1:]):
        got = " x ".join(map(str, last))
        expected = f"an image at the end, of 1 or 3 channels and 8 to {MAX_SIDE} pixels a side"
        raise SpecError("decoder.layers", expected, got)
    channels, height, width = last
    fields = {"channels": channels, "latent_dim": described.latent_dim} | size_fields((width, height))
    return validate(
        LayersConfig, fields | {"layers": layers, "output": described.output}, field="decoder", error=SpecError
    )


def _match_tensors(
    config: LayersConfig, prefixes: list[str], weights: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The tensors of all layers, named as in ``LayersDecoder``. None may be missing or left over."""
    wanted = {name: tuple(tensor.shape) for name, tensor in LayersDecoder(config).state_dict().items()}
    tensors, used = dict[str, np.ndarray](), set[str]()
    for name, shape in wanted.items():
        number, _, part = name.removeprefix("layers.").partition(".")
        given_name = f"{prefixes[int(number)]}.{part}"
        if part == "num_batches_tracked":  # counted in training only
            tensors[name] = np.zeros((), dtype=np.int64)
            used.add(given_name)
            continue
        if given_name not in weights:
            raise SpecError("weights", f"a tensor {given_name} for layer {number}", _list_names(weights))
        array = np.asarray(weights[given_name])
        if array.shape != shape or array.dtype.kind != "f":
            raise SpecError(
                f"weights:{given_name}", f"floats of shape {shape}", f"{array.dtype} of shape {array.shape}"
            )
        if not np.isfinite(array).all():
            raise SpecError(f"weights:{given_name}", "finite numbers", "NaN or infinity")
        tensors[name] = array.astype(np.float32)
        used.add(given_name)
    if unused := [name for name in weights if name not in used]:
        hint = "describe all layers of the decoder, or remove the other tensors from the file"
        raise SpecError("weights", "only tensors of the described layers", ", ".join(unused[:5]), hint)
    return tensors


def _list_names(weights: Mapping[str, np.ndarray]) -> str:
    return f"only {', '.join(list(weights)[:10])}{', ...' if len(weights) > 10 else ''}" if weights else "none"
