"""Trained networks at work: images to codes, and images to their reconstructions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from generator.autoencoders.networks import Decoder, Encoder, NetworkShape, build_decoder, build_encoder, to_input


def load_encoder(config: NetworkShape, state: Mapping[str, Tensor], device: str = "cpu") -> Encoder:
    """An encoder with trained weights, in ``eval`` mode."""
    encoder = build_encoder(config)
    encoder.load_state_dict(state)
    return encoder.eval().requires_grad_(False).to(device)


def load_decoder(config: NetworkShape, state: Mapping[str, Tensor], device: str = "cpu") -> Decoder:
    """A decoder with trained weights, in ``eval`` mode."""
    decoder = build_decoder(config)
    decoder.load_state_dict(state)
    return decoder.eval().requires_grad_(False).to(device)


@torch.inference_mode()
def encode(encoder: Encoder, images_NHWC: np.ndarray, batch: int = 512) -> np.ndarray:
    """codes_ND float64: the posterior means of uint8 images."""
    device = encoder.mean.weight.device
    parts = [
        encoder(to_input(images_NHWC[begin : begin + batch], device)).cpu().numpy()
        for begin in range(0, len(images_NHWC), batch)
    ]
    return np.concatenate(parts).astype(np.float64)


@torch.inference_mode()
def reconstruct(encoder: Encoder, decoder: Decoder, images_NHWC: np.ndarray, batch: int = 512) -> np.ndarray:
    """uint8 images_NHWC after one way down to their codes and up again, rounded to the nearest level."""
    device = encoder.mean.weight.device
    parts = []
    for begin in range(0, len(images_NHWC), batch):
        x_BCHW = decoder(encoder(to_input(images_NHWC[begin : begin + batch], device)))
        parts.append(x_BCHW.mul(255.0).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)
