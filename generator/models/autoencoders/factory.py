"""Builds the encoder and decoder of any family, with fresh or trained weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from generator.errors import BundleError
from generator.models.autoencoders.config import AutoencoderConfig, LinearConfig, SpatialConfig, VaeConfig
from generator.models.autoencoders.families.linear import LinearDecoder, LinearEncoder
from generator.models.autoencoders.graphs.config import GraphConfig
from generator.models.autoencoders.graphs.network import GraphDecoder, GraphEncoder
from generator.models.autoencoders.imported.layers import LayersConfig
from generator.models.autoencoders.imported.network import LayersDecoder
from generator.models.autoencoders.networks import Decoder, Encoder, GaussianEncoder, channels_last
from generator.models.autoencoders.spatial_networks import SpatialDecoder, SpatialEncoder


def build_encoder(config: AutoencoderConfig) -> nn.Module:
    """x_BCHW -> z_BD, with fresh weights from torch's global generator, in channels_last layout, in training mode.

    Raises ``BundleError`` for an imported decoder without an encoder.
    """
    if isinstance(config, GraphConfig) and config.encoder is not None:
        return channels_last(GraphEncoder(config.encoder))
    if isinstance(config, LayersConfig | GraphConfig):
        raise BundleError("encoder", "an autoencoder", "an imported decoder without an encoder")
    if isinstance(config, LinearConfig):
        return LinearEncoder(config)
    if isinstance(config, SpatialConfig):
        return channels_last(SpatialEncoder(config))
    return channels_last(GaussianEncoder(config) if isinstance(config, VaeConfig) else Encoder(config))


def build_decoder(config: AutoencoderConfig) -> nn.Module:
    """z_BD -> x_BCHW, with fresh weights from torch's global generator, in channels_last layout, in training mode.

    A decoder of classes also takes labels_B (``takes_labels``).
    """
    if isinstance(config, GraphConfig):
        return channels_last(GraphDecoder(config))
    if isinstance(config, LinearConfig):
        return LinearDecoder(config)
    if isinstance(config, SpatialConfig):
        return channels_last(SpatialDecoder(config))
    return channels_last(LayersDecoder(config) if isinstance(config, LayersConfig) else Decoder(config))


def load_encoder(
    config: AutoencoderConfig, state: Mapping[str, Tensor], device: str | torch.device = "cpu"
) -> nn.Module:
    """An encoder with trained weights, frozen, in ``eval`` mode."""
    return _load_frozen(build_encoder(config), state, device)


def load_decoder(
    config: AutoencoderConfig, state: Mapping[str, Tensor], device: str | torch.device = "cpu"
) -> nn.Module:
    """A decoder with trained weights, frozen, in ``eval`` mode."""
    return _load_frozen(build_decoder(config), state, device)


def _load_frozen(network: nn.Module, state: Mapping[str, Tensor], device: str | torch.device) -> nn.Module:
    network.load_state_dict(dict(state))
    return network.eval().requires_grad_(False).to(device)
