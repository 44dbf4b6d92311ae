"""The network of an imported decoder, built from its list of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from generator.models.autoencoders.imported.layers import (
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    GroupNorm,
    Layer,
    LayersConfig,
    Linear,
    PixelShuffle,
    Shape,
    Unflatten,
    Upsample,
    layer_shapes,
)

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


@final
class LayersDecoder(nn.Module):
    """z_BD float32 -> x_BCHW in [0, 1]. Parameters are named ``layers.<number>.<name>``."""

    def __init__(self, config: LayersConfig) -> None:
        super().__init__()
        before = layer_shapes(config.latent_dim, config.layers)
        self.layers = nn.Sequential(*map(to_module, config.layers, before[:-1]))
        self._output = config.output

    def forward(self, z_BD: Tensor) -> Tensor:
        x_BCHW: Tensor = self.layers(z_BD)
        if self._output == "sigmoid":
            return torch.sigmoid(x_BCHW)
        return (x_BCHW + 1.0) / 2.0 if self._output == "symmetric" else x_BCHW


def to_module(layer: Layer, before: Shape) -> nn.Module:
    """The PyTorch module of one layer whose input has the shape ``before``."""
    features = before[0]
    match layer:
        case Linear():
            return nn.Linear(features, layer.features, bias=layer.bias)
        case Conv():
            return nn.Conv2d(features, layer.channels, **_conv_options(layer), bias=layer.bias)
        case ConvTranspose():
            options = _conv_options(layer) | {"output_padding": layer.output_padding}
            return nn.ConvTranspose2d(features, layer.channels, **options, bias=layer.bias)
        case BatchNorm():
            return (nn.BatchNorm1d if len(before) == 1 else nn.BatchNorm2d)(features, eps=layer.eps)
        case GroupNorm():
            return nn.GroupNorm(layer.groups, features, eps=layer.eps)
        case Unflatten():
            return nn.Unflatten(1, (layer.channels, layer.height, layer.width))
        case Upsample():
            return nn.Upsample(scale_factor=layer.factor, mode=layer.mode)
        case PixelShuffle():
            return nn.PixelShuffle(layer.factor)
        case Activation(kind="leaky_relu"):
            return nn.LeakyReLU(layer.slope)
        case Activation():
            return _ACTIVATIONS[layer.kind]()


def _conv_options(layer: Conv | ConvTranspose) -> dict[str, Any]:
    return {"kernel_size": layer.kernel, "stride": layer.stride, "padding": layer.padding}
