"""Inference with trained networks: encode, decode, and reconstruct images."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from generator.models.autoencoders.networks import to_input


@torch.inference_mode()
def encode(encoder: nn.Module, images_NHWC: np.ndarray, batch: int = 512) -> np.ndarray:
    """codes_ND of uint8 images, float64 (converted from float32); posterior means for a variational encoder."""
    device = next(encoder.parameters()).device
    parts = [
        encoder(to_input(images_NHWC[begin : begin + batch], device)).cpu().numpy()
        for begin in range(0, len(images_NHWC), batch)
    ]
    return np.concatenate(parts).astype(np.float64)


@torch.inference_mode()
def reconstruct(encoder: nn.Module, decoder: nn.Module, images_NHWC: np.ndarray, batch: int = 512) -> np.ndarray:
    """uint8 reconstructions of images_NHWC: encoded, decoded, rounded to the nearest level and clamped."""
    device = next(encoder.parameters()).device
    parts = []
    for begin in range(0, len(images_NHWC), batch):
        parts.append(_to_images(decoder(encoder(to_input(images_NHWC[begin : begin + batch], device)))))
    return np.concatenate(parts)


@torch.inference_mode()
def decode(
    decoder: nn.Module, codes_ND: np.ndarray, batch: int = 512, labels_N: np.ndarray | None = None
) -> np.ndarray:
    """uint8 images_NHWC of float64 codes, rounded to the nearest level and clamped.

    ``labels_N`` (int64): for a decoder that takes them.
    """
    device = next(decoder.parameters()).device
    parts = []
    for begin in range(0, len(codes_ND), batch):
        rows = slice(begin, begin + batch)
        inputs = [torch.from_numpy(codes_ND[rows].astype(np.float32)).to(device)]
        inputs += [] if labels_N is None else [torch.from_numpy(labels_N[rows]).to(device)]
        parts.append(_to_images(decoder(*inputs)))
    return np.concatenate(parts)


def _to_images(x_BCHW: torch.Tensor) -> np.ndarray:
    images_NHWC: np.ndarray = (
        x_BCHW.mul(255.0).round().clamp(0.0, 255.0).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    )
    return images_NHWC
