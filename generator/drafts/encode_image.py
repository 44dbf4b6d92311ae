"""Encodes one image file to a code in a bundle's latent space. Imports torch, so it is imported only when needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from generator.errors import BundleError, SpecError
from generator.models.autoencoders.factory import load_encoder
from generator.models.autoencoders.inference import encode
from generator.models.bundle import BundleInfo, load_encoder_weights
from generator.sources.pixels.depth import Scale
from generator.sources.pixels.image import TargetShape, fit_image, image_error, open_image, strict_pillow
from generator.store.base import Store


def encode_image(path: str, bundle: Store, info: BundleInfo, *, field: str) -> tuple[float, ...]:
    """The code of the image file at ``path``, which is resized to the bundle's images like a source, then encoded.

    Raises ``SpecError`` naming ``field`` if the file is not an image, or the bundle's images are no squares, and
    ``BundleError`` if the bundle has no encoder.
    """
    weights = load_encoder_weights(bundle, info)
    image_HWC = _load_image(path, info, field)
    state = {name: torch.from_numpy(np.array(weight)) for name, weight in weights.items()}
    try:
        encoder = load_encoder(info.autoencoder, state)
    except RuntimeError as unfit:
        raise BundleError("encoder.safetensors", "the encoder's parameters", f"different ones ({unfit})") from unfit
    code_D = encode(encoder, image_HWC[None])[0]
    if not np.isfinite(code_D).all():
        raise BundleError("encoder.safetensors", "an encoder that gives finite codes", f"NaN or infinity for {path}")
    return tuple(code_D.tolist())


def _load_image(path: str, info: BundleInfo, field: str) -> np.ndarray:
    shape, reading = info.image, info.source.reading
    scale = None if reading.white is None else Scale(reading.white, reading.black or 0.0)
    target = TargetShape(shape.width, shape.height, shape.channels, reading.resize, scale)
    with strict_pillow():
        try:
            with open_image(Path(path), target, name=path) as image:
                fitted = np.array(fit_image(image, target))  # a copy, as Pillow's array is read-only
        except Exception as error:  # Pillow's readers raise any exception for damaged bytes
            bad = image_error(path, error)
            raise SpecError(field, bad.expected, f"{path} ({bad.got})") from error
    return fitted.reshape(shape.height, shape.width, shape.channels)
