"""Networks of other libraries with random weights, for tests of converters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # takes seconds to import: only tests that call it wait for it
    from diffusers import AutoencoderKL, AutoencoderTiny


def with_random_weights(network: nn.Module, seed: int = 0) -> nn.Module:
    """``network`` in ``eval`` mode, with weights that keep values near 1, so that errors of any layer are seen."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.dim() > 1:
            weight.data = noise / weight[0].numel() ** 0.5
        else:
            weight.data = 0.1 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return network.eval()


def tiny_autoencoder(
    stages: int, width: int, *, num_blocks: tuple[int, ...] | None = None, **options: object
) -> AutoencoderTiny:
    """An ``AutoencoderTiny`` of ``stages`` stages; ``num_blocks``: of the encoder's stages, one each by default."""
    from diffusers import AutoencoderTiny

    blocks = num_blocks or (1,) * stages
    return with_random_weights(
        AutoencoderTiny(
            encoder_block_out_channels=(width,) * stages,
            decoder_block_out_channels=(width,) * stages,
            num_encoder_blocks=blocks,
            num_decoder_blocks=blocks[::-1],
            **options,
        )
    )


def kl_autoencoder(widths: tuple[int, ...], **options: object) -> AutoencoderKL:
    """An ``AutoencoderKL`` with these widths."""
    from diffusers import AutoencoderKL

    return with_random_weights(
        AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths),
            norm_num_groups=8,
            **options,
        )
    )


class EncoderOf(nn.Module):
    """The mean of the code of images in [-1, 1]."""

    def __init__(self, autoencoder: AutoencoderKL | AutoencoderTiny) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, x: Tensor) -> Tensor:
        encoded = self.autoencoder.encode(x)
        code: Tensor = encoded.latents if "latents" in encoded else encoded.latent_dist.mean
        return code


class DecoderOf(nn.Module):
    """Images in [-1, 1] of codes."""

    def __init__(self, autoencoder: AutoencoderKL | AutoencoderTiny) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.autoencoder.decode(z).sample
        return image


class StyleGenerator(nn.Module):
    """A small generator of classes in the manner of StyleGAN2: mapping network, modulated convolutions, skips.

    Noise inputs are stored as constants. ``one_hot``: the class is a row of numbers instead of a number.
    """

    def __init__(
        self, dims: int = 16, classes: int = 5, width: int = 24, stages: int = 3, one_hot: bool = False
    ) -> None:
        super().__init__()
        self.classes, self.dims, self.one_hot = classes, dims, one_hot
        self.embedding = nn.Linear(classes, dims, bias=False) if one_hot else nn.Embedding(classes, dims)
        self.mapping = nn.Sequential(nn.Linear(2 * dims, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2))
        self.start = nn.Parameter(torch.randn(1, width, 4, 4))
        self.layers = nn.ModuleList(_Modulated(width, width, 4 * 2**n) for n in range(stages))
        self.images = nn.ModuleList(nn.Conv2d(width, 3, 1) for _ in range(stages))

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        style = torch.cat([z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt(), self.embedding(label)], 1)
        style = self.mapping(style)
        x, image = self.start.expand(z.shape[0], -1, -1, -1), None
        for number, (layer, to_image) in enumerate(zip(self.layers, self.images, strict=True)):
            if number:
                x = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
                image = nn.functional.interpolate(image, scale_factor=2.0, mode="nearest")
            x = layer(x, style)
            image = to_image(x) if image is None else image + to_image(x)
        assert image is not None
        return torch.tanh(image)


class _Modulated(nn.Module):
    """A convolution whose weights are scaled by a style and normalised, said as scaled input and scaled output."""

    def __init__(self, before: int, after: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, 3, 3))
        self.style = nn.Linear(32, before)
        self.bias, self.strength = nn.Parameter(torch.zeros(after)), nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(1, 1, side, side))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale = 1.0 + self.style(style)
        weights = self.weight[None] * scale[:, None, :, None, None]
        gain = (weights.square().sum(dim=(2, 3, 4)) + 1e-8).rsqrt()
        x = nn.functional.conv2d(x * scale[:, :, None, None], self.weight, padding=1) * gain[:, :, None, None]
        return nn.functional.leaky_relu(x + self.noise * self.strength + self.bias[None, :, None, None], 0.2)


class AttentionDecoder(nn.Module):
    """A decoder with multi-head attention, layer norms, GELU and a gate, in the manner of transformers."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.begin, self.heads = nn.Conv2d(8, width, 1), heads
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.gate = nn.Linear(width, width)
        self.end = nn.Sequential(
            nn.BatchNorm2d(width), nn.Hardswish(), nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2)
        )

    def forward(self, z: Tensor) -> Tensor:
        x = self.begin(z)
        batch, width, height, side = x.shape
        rows = x.flatten(2).transpose(1, 2)
        query, key, value = (
            part.view(batch, -1, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm(rows)).chunk(3, dim=-1)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        rows = rows + self.out(mixed.transpose(1, 2).reshape(batch, -1, width))
        rows = rows + self.mlp(rows)
        x = rows.transpose(1, 2).view(batch, width, height, side)
        x = x * torch.sigmoid(self.gate(x.mean(dim=(2, 3))))[:, :, None, None]
        image: Tensor = self.end(x)
        return image
