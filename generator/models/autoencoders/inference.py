"""Inference with trained networks: encode, decode, and reconstruct images."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from generator.models.autoencoders.networks import to_input
from generator.models.batched_rows import batched_rows, images_at_once


@torch.inference_mode()
def encode(encoder: nn.Module, images_NHWC: np.ndarray, batch: int = 512) -> np.ndarray:
    """codes_ND of uint8 images, float64 (converted from float32); posterior means for a variational encoder.

    At most ``batch`` images at one time, fewer of large ones.
    """
    device = next(encoder.parameters()).device

    def codes_of(rows: slice) -> np.ndarray:
        codes: np.ndarray = encoder(to_input(images_NHWC[rows], device)).cpu().numpy()
        return codes

    batch = images_at_once(images_NHWC.shape[1:], batch)
    return batched_rows(codes_of, len(images_NHWC), batch).astype(np.float64)


@torch.inference_mode()
def reconstruct(encoder: nn.Module, decoder: nn.Module, images_NHWC: np.ndarray, batch: int = 512) -> np.ndarray:
    """uint8 reconstructions of images_NHWC: encoded, decoded, rounded to the nearest level and clamped.

    At most ``batch`` images at one time, fewer of large ones.
    """
    device = next(encoder.parameters()).device

    def images_of(rows: slice) -> np.ndarray:
        return _to_images(decoder(encoder(to_input(images_NHWC[rows], device))))

    batch = images_at_once(images_NHWC.shape[1:], batch)
    return batched_rows(images_of, len(images_NHWC), batch)


@torch.inference_mode()
def decode(
    decoder: nn.Module, codes_ND: np.ndarray, batch: int = 512, labels_N: np.ndarray | None = None
) -> np.ndarray:
    """uint8 images_NHWC of float64 codes, rounded to the nearest level and clamped.

    ``labels_N`` (int64): for a decoder that takes them.
    """
    device = next(decoder.parameters()).device

    def images_of(rows: slice) -> np.ndarray:
        inputs = [torch.from_numpy(codes_ND[rows].astype(np.float32)).to(device)]
        inputs += [] if labels_N is None else [torch.from_numpy(labels_N[rows]).to(device)]
        return _to_images(decoder(*inputs))

    return batched_rows(images_of, len(codes_ND), batch)


def _to_images(x_BCHW: torch.Tensor) -> np.ndarray:
    images_NHWC: np.ndarray = (
        x_BCHW.mul(255.0).round().clamp(0.0, 255.0).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    )
    return images_NHWC
