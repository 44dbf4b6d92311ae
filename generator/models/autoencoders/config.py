"""Autoencoder configurations, one model per family. Importing this file does not import torch.

``size``: height and width in pixels. ``channels``: 1 grey, 3 RGB. ``latent_dim``: numbers of a code. ``width``:
feature maps at half the image's resolution; doubled at each halving of the side, up to eight times ``width``.
A code is a vector (D), or in the family ``spatial`` a grid (C, h, w), which is stored and passed flat, as D = C h w
numbers in this order.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from generator.errors import InputError, SpecError
from generator.models.autoencoders.graphs.config import GraphConfig
from generator.models.autoencoders.imported.layers import LayersConfig
from generator.spec.canonical import FrozenModel, validate

MIN_SIZE, MAX_SIZE = 8, 128
MIN_SPATIAL_SIZE, MAX_SPATIAL_SIZE = 32, 512
MAX_LATENT_DIM = 65_536
_COARSEST = 4
_MAX_MULTIPLICATIONS = 2**44  # for samples that are drawn only to measure something: minutes on two cores
_LARGE = 128  # pixels from which ``spatial`` works on patches of 8 x 8 instead of 4 x 4 pixels

Size = Annotated[int, Field(ge=MIN_SIZE, le=MAX_SIZE, strict=True)]
LatentDim = Annotated[int, Field(ge=1, le=512, strict=True)]
Width = Annotated[int, Field(ge=4, le=256, strict=True)]


class LinearConfig(FrozenModel):
    """One hidden layer without a non-linearity, on all pixels, or on patches of ``patch`` x ``patch`` pixels.

    Patches share their weights, and each has the same number of latent dimensions.
    """

    family: Literal["linear"] = "linear"
    size: Size
    channels: Literal[1, 3] = 1
    latent_dim: LatentDim
    patch: int | None = Field(default=None, ge=2, le=MAX_SIZE, strict=True)

    @model_validator(mode="after")
    def _check_patch(self) -> LinearConfig:
        if self.patch is None:
            return self
        if self.size % self.patch:
            raise ValueError(f"a patch that divides the size {self.size}, not {self.patch}")
        patches = (self.size // self.patch) ** 2
        if self.latent_dim % patches:
            raise ValueError(f"a latent_dim that {patches} patches can share evenly, not {self.latent_dim}")
        return self


class StackedConfig(FrozenModel):
    """Convolutional, deterministic, trained end to end."""

    family: Literal["stacked"] = "stacked"
    size: Size
    channels: Literal[1, 3] = 1
    latent_dim: LatentDim
    width: Width = 32


class LayerwiseConfig(FrozenModel):
    """As ``stacked``, but each layer is first trained alone on the codes of the layer below.

    ``pretraining``: the share of all steps for that, equal for all layers; the rest is fine-tuning.
    """

    family: Literal["stacked-layerwise"] = "stacked-layerwise"
    size: Size
    channels: Literal[1, 3] = 1
    latent_dim: LatentDim
    width: Width = 32
    pretraining: float = Field(default=0.4, gt=0.0, lt=1.0)


class DenoisingConfig(FrozenModel):
    """As ``stacked``, but it reconstructs the clean image from a noisy one.

    ``noise``: ``gaussian`` of standard deviation ``amount``, ``masking`` (the share ``amount`` of pixels black), or
    ``salt-and-pepper`` (that share black or white).
    """

    family: Literal["denoising"] = "denoising"
    size: Size
    channels: Literal[1, 3] = 1
    latent_dim: LatentDim
    width: Width = 32
    noise: Literal["gaussian", "masking", "salt-and-pepper"] = "gaussian"
    amount: float = Field(default=0.3, gt=0.0, lt=1.0)


class VaeConfig(FrozenModel):
    """A convolutional variational autoencoder.

    ``beta``: weight of the Kullback-Leibler term relative to the reconstruction (1 is the evidence lower bound). It
    grows from zero during the share ``warmup`` of all steps. ``free_bits``: divergence of each latent dimension that is
    not penalised, in nats.
    """

    family: Literal["vae"] = "vae"
    size: Size
    channels: Literal[1, 3] = 1
    latent_dim: LatentDim
    width: Width = 32
    beta: float = Field(default=0.05, ge=0.0, le=100.0)
    warmup: float = Field(default=0.1, ge=0.0, le=1.0)
    free_bits: float = Field(default=0.0, ge=0.0, le=10.0)


class AdversarialConfig(FrozenModel):
    """A discriminator pulls the codes towards the prior; ``adversary``: its weight relative to the reconstruction.

    ``conditioned``: the label is also an input of the discriminator, and the prior has one Gaussian per class.
    """

    family: Literal["adversarial"] = "adversarial"
    size: Size
    channels: Literal[1, 3] = 1
    latent_dim: LatentDim
    width: Width = 32
    adversary: float = Field(default=30.0, ge=0.0, le=1000.0)
    conditioned: bool = False


class RegularizedConfig(FrozenModel):
    """Deterministic, with a penalty on the codes (``code_penalty`` times |z|^2 / 2) and one on the decoder.

    ``decoder_penalty``: ``l2`` (norm of its weights), ``gradient`` (norm of its Jacobian), or ``spectral`` (normalised
    layers). ``decoder_weight``: the weight of this penalty (no effect on ``spectral``).
    """

    family: Literal["regularized"] = "regularized"
    size: Size
    channels: Literal[1, 3] = 1
    latent_dim: LatentDim
    width: Width = 32
    code_penalty: float = Field(default=0.05, ge=0.0, le=100.0)
    decoder_penalty: Literal["l2", "gradient", "spectral"] = "l2"
    decoder_weight: float = Field(default=1e-4, ge=0.0, le=100.0)


class SpatialConfig(FrozenModel):
    """Convolutional, deterministic; a code is a grid of ``code_channels`` numbers at each of its positions.

    Nearly all work is done at a fourth of the image's side (an eighth from 128 px), with ``width`` feature maps; the
    code's grid has half of that side, and twice as many maps. Training adds noise to the codes, up to ``code_noise``
    times their standard deviation, so that the decoder tolerates sampled ones; a share ``equivariance`` of the codes is
    mirrored or halved in size, as then their images must be (Kouzelis et al., "EQ-VAE", arXiv:2502.09509).
    ``code_penalty`` times |z|^2 / 2 keeps codes small. ``averaging``: half-life of the moving average of the weights,
    as a share of all steps. ``feature_steps``: training steps of the classifier whose maps the feature loss compares.
    """

    family: Literal["spatial"] = "spatial"
    size: Annotated[int, Field(ge=MIN_SPATIAL_SIZE, le=MAX_SPATIAL_SIZE, strict=True)]
    channels: Literal[1, 3] = 3
    code_channels: int = Field(default=32, ge=1, le=256, strict=True)
    width: int = Field(default=64, ge=8, le=512, strict=True)
    code_noise: float = Field(default=0.25, ge=0.0, le=4.0)
    equivariance: float = Field(default=0.5, ge=0.0, le=1.0)
    code_penalty: float = Field(default=1e-3, ge=0.0, le=100.0)
    averaging: float = Field(default=0.05, gt=0.0, le=0.5)
    feature_steps: int = Field(default=600, ge=1, le=1_000_000, strict=True)

    @field_validator("size")
    @classmethod
    def _check_multiple(cls, size: int) -> int:
        multiple = 2 * _spatial_patch(size)
        if size % multiple:
            raise ValueError(f"a multiple of {multiple}, not {size}")
        return size

    @model_validator(mode="after")
    def _check_code_size(self) -> SpatialConfig:
        if self.latent_dim > MAX_LATENT_DIM:
            raise ValueError(f"a code of at most {MAX_LATENT_DIM} numbers, not {self.latent_dim}")
        return self

    @property
    def patch(self) -> int:
        """Side of the patches of pixels that the networks work on."""
        return _spatial_patch(self.size)

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of a code."""
        side = self.size // (2 * self.patch)
        return self.code_channels, side, side

    @property
    def latent_dim(self) -> int:
        """Numbers of a code: C h w."""
        return prod(self.code_shape)


ConvolutionalConfig = (
    StackedConfig | LayerwiseConfig | DenoisingConfig | VaeConfig | AdversarialConfig | RegularizedConfig
)
AutoencoderConfig = Annotated[
    LinearConfig
    | StackedConfig
    | LayerwiseConfig
    | DenoisingConfig
    | VaeConfig
    | AdversarialConfig
    | RegularizedConfig
    | SpatialConfig
    | LayersConfig
    | GraphConfig,
    Field(discriminator="family"),
]
_MODELS = {model.model_fields["family"].default: model for model in get_args(get_args(AutoencoderConfig)[0])}
# the families that can be trained
FAMILIES: tuple[str, ...] = tuple(name for name, model in _MODELS.items() if model not in (LayersConfig, GraphConfig))


def default_config(size: int, channels: int, family: str = "vae", **options: Any) -> AutoencoderConfig:
    """The configuration for images of ``size`` x ``size`` pixels with 1 or 3 ``channels``.

    ``generator.models.learning.recommended_model`` also considers other properties of the source.
    ``options`` replace single fields. Raises ``SpecError`` naming the invalid field.
    """
    if family == "spatial":
        return parse_config({"family": family, "size": size, "channels": channels, **_spatial_defaults(size)} | options)
    latent_dim = (16 if size < 16 else 24 if size < 48 else 48) * (2 if channels == 3 else 1)
    shape: dict[str, Any] = {"family": family, "size": size, "channels": channels, "latent_dim": latent_dim}
    if family != "linear":
        shape["width"] = 64 if size < 16 else 32
    return parse_config(shape | options)


def check_model_size(family: str, size: int) -> None:
    """Raise ``SpecError`` unless models of ``family`` exist for images of ``size`` pixels."""
    parse_config({"family": family, "size": size} | ({} if family == "spatial" else {"latent_dim": 1}), field="")


def code_shape(config: AutoencoderConfig) -> tuple[int, ...]:
    """The shape of a code: (D), or (C, h, w)."""
    return config.code_shape if isinstance(config, SpatialConfig | GraphConfig) else (config.latent_dim,)


def takes_labels(config: AutoencoderConfig) -> bool:
    """Whether the decoder draws classes: it takes labels beside codes."""
    return isinstance(config, GraphConfig) and config.classes > 0


def limit_batch(config: AutoencoderConfig, wanted: int, numbers: int = 2**27) -> int:
    """``wanted`` rows, or a divisor of it whose values take at most ``numbers`` numbers at one time.

    Only imported networks are so large that this matters.
    """
    if not isinstance(config, GraphConfig):
        return wanted
    row = max(graph.live_features() for graph in (config.decoder, config.encoder) if graph is not None)
    return max(
        batch for batch in range(1, wanted + 1) if wanted % batch == 0 and (batch == 1 or batch * row <= numbers)
    )


def limit_samples(config: AutoencoderConfig, wanted: int) -> int:
    """``wanted`` images, or fewer where an imported decoder would take very long for them on a CPU."""
    if not isinstance(config, GraphConfig):
        return wanted
    return max(1, min(wanted, _MAX_MULTIPLICATIONS // max(1, config.decoder.multiplications())))


def _spatial_patch(size: int) -> int:
    return 4 if size < _LARGE else 8


def _spatial_defaults(size: int) -> dict[str, Any]:
    """The number of code channels that gives at most 512 numbers up to 64 px, and 8 numbers a position beyond."""
    return {"code_channels": 32 if size < 48 else 8}


def parse_config(value: Any, *, field: str = "model", error: type[InputError] = SpecError) -> AutoencoderConfig:
    """An untrusted value (parsed JSON or YAML) as a configuration; ``error`` names the field that is wrong."""
    family = value.get("family") if isinstance(value, dict) else None
    if family not in _MODELS:
        raise error(f"{field}.family", f"one of {', '.join(FAMILIES)}", repr(family))
    config: AutoencoderConfig = validate(_MODELS[family], value, field=field, error=error)
    return config


def side_lengths(size: int) -> tuple[int, ...]:
    """Side lengths from ``size`` down to the coarsest grid (at most 4), each half of the one before, rounded up."""
    sides = [size]
    while sides[-1] > _COARSEST:
        sides.append((sides[-1] + 1) // 2)
    return tuple(sides)
