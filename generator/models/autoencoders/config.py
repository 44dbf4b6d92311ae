"""Autoencoder configurations, one model per family. Importing this file does not import torch.

``size`` and ``image_width``: as in ``ImageConfig``. ``channels``: 1 grey, 3 RGB. ``latent_dim``: numbers of a code.
``width``: feature maps at half the image's resolution; doubled at each halving, up to eight times ``width``.
A code is a vector (D), or in the family ``spatial`` a grid (C, h, w), which is stored and passed flat, as D = C h w
numbers in this order.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from generator.errors import InputError, SpecError
from generator.models.autoencoders.graphs.config import GraphConfig
from generator.models.autoencoders.image_config import ImageConfig, size_fields
from generator.models.autoencoders.imported.layers import LayersConfig
from generator.models.autoencoders.margins import Margins, margins_to
from generator.spec.canonical import Later, validate
from generator.spec.image_size import AnySize, ImageSize, as_size, format_size

MIN_SIZE, MAX_SIZE = 8, 128
MIN_SPATIAL_SIZE, MAX_SPATIAL_SIZE = 32, 512
MAX_LATENT_DIM = 65_536
_COARSEST = 4
_MAX_MULTIPLICATIONS = 2**44  # for samples that are drawn only to measure something: minutes on two cores
_LARGE = 128**2  # pixels from which ``spatial`` works on patches of 8 x 8 instead of 4 x 4 pixels

Size = Annotated[int, Field(ge=MIN_SIZE, le=MAX_SIZE, strict=True)]
LatentDim = Annotated[int, Field(ge=1, le=512, strict=True)]
Width = Annotated[int, Field(ge=4, le=256, strict=True)]
SpatialSize = Annotated[int, Field(ge=MIN_SPATIAL_SIZE, le=MAX_SPATIAL_SIZE, strict=True)]


class VectorConfig(ImageConfig):
    """Base of the families whose codes are vectors: all positions of the coarsest grid meet in one layer."""

    size: Size
    image_width: Size | None = None
    channels: Literal[1, 3] = 1
    latent_dim: LatentDim


class LinearConfig(VectorConfig):
    """One hidden layer without a non-linearity, on all pixels, or on patches of ``patch`` x ``patch`` pixels.

    Patches share their weights, and each has the same number of latent dimensions.
    """

    family: Literal["linear"] = "linear"
    patch: int | None = Field(default=None, ge=2, le=MAX_SIZE, strict=True)

    @model_validator(mode="after")
    def _check_patch(self) -> LinearConfig:
        if self.patch is None:
            return self
        if any(side % self.patch for side in self.image_size):
            raise ValueError(f"a patch that divides the size {self.image_size}, not {self.patch}")
        if self.latent_dim % self.patches:
            raise ValueError(f"a latent_dim that {self.patches} patches can share evenly, not {self.latent_dim}")
        return self

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Height and width of a patch."""
        width, height = self.image_size
        return (height, width) if self.patch is None else (self.patch, self.patch)

    @property
    def patches(self) -> int:
        """Their number."""
        return self.image_size.pixels // prod(self.patch_shape)


class StackedConfig(VectorConfig):
    """Convolutional, deterministic, trained end to end."""

    family: Literal["stacked"] = "stacked"
    width: Width = 32


class LayerwiseConfig(VectorConfig):
    """As ``stacked``, but each layer is first trained alone on the codes of the layer below.

    ``pretraining``: the share of all steps for that, equal for all layers; the rest is fine-tuning.
    """

    family: Literal["stacked-layerwise"] = "stacked-layerwise"
    width: Width = 32
    pretraining: float = Field(default=0.4, gt=0.0, lt=1.0)


class DenoisingConfig(VectorConfig):
    """As ``stacked``, but it reconstructs the clean image from a noisy one.

    ``noise``: ``gaussian`` of standard deviation ``amount``, ``masking`` (the share ``amount`` of pixels black), or
    ``salt-and-pepper`` (that share black or white).
    """

    family: Literal["denoising"] = "denoising"
    width: Width = 32
    noise: Literal["gaussian", "masking", "salt-and-pepper"] = "gaussian"
    amount: float = Field(default=0.3, gt=0.0, lt=1.0)


class VaeConfig(VectorConfig):
    """A convolutional variational autoencoder.

    ``beta``: weight of the Kullback-Leibler term relative to the reconstruction (1 is the evidence lower bound). It
    grows from zero during the share ``warmup`` of all steps. ``free_bits``: divergence of each latent dimension that is
    not penalised, in nats. ``label_weight``: weight of the cross-entropy, in nats, with which a linear layer reads the
    label off the code, so that the codes of a class lie together; the layer is not kept.
    """

    family: Literal["vae"] = "vae"
    width: Width = 32
    beta: float = Field(default=0.05, ge=0.0, le=100.0)
    warmup: float = Field(default=0.1, ge=0.0, le=1.0)
    free_bits: float = Field(default=0.0, ge=0.0, le=10.0)
    label_weight: Annotated[float, Later()] = Field(default=0.0, ge=0.0, le=10_000.0)


class AdversarialConfig(VectorConfig):
    """A discriminator pulls the codes towards the prior; ``adversary``: its weight relative to the reconstruction.

    ``conditioned``: the label is also an input of the discriminator, and the prior has one Gaussian per class.
    """

    family: Literal["adversarial"] = "adversarial"
    width: Width = 32
    adversary: float = Field(default=30.0, ge=0.0, le=1000.0)
    conditioned: bool = False


class RegularizedConfig(VectorConfig):
    """Deterministic, with a penalty on the codes (``code_penalty`` times |z|^2 / 2) and one on the decoder.

    ``decoder_penalty``: ``l2`` (norm of its weights), ``gradient`` (norm of its Jacobian), or ``spectral`` (normalised
    layers). ``decoder_weight``: the weight of this penalty (no effect on ``spectral``).
    """

    family: Literal["regularized"] = "regularized"
    width: Width = 32
    code_penalty: float = Field(default=0.05, ge=0.0, le=100.0)
    decoder_penalty: Literal["l2", "gradient", "spectral"] = "l2"
    decoder_weight: float = Field(default=1e-4, ge=0.0, le=100.0)


class SpatialConfig(ImageConfig):
    """Convolutional, deterministic; a code is a grid of ``code_channels`` numbers at each of its positions.

    Nearly all work is done at a fourth of the image's sides (an eighth from 128 x 128 pixels), with ``width`` feature
    maps; the code's grid has half of these sides, and twice as many maps. Images whose sides do not divide so are
    extended by ``margins``, which repeat the border. Training adds noise to the codes, up to ``code_noise`` times their
    standard deviation, so that the decoder tolerates sampled ones; a share ``equivariance`` of the codes is mirrored or
    halved in size, as then their images must be (Kouzelis et al., "EQ-VAE", arXiv:2502.09509).
    ``code_penalty`` times |z|^2 / 2 keeps codes small. ``averaging``: half-life of the moving average of the weights,
    as a share of all steps. ``feature_steps``: training steps of the classifier whose maps the feature loss compares.
    """

    family: Literal["spatial"] = "spatial"
    size: SpatialSize
    image_width: SpatialSize | None = None
    channels: Literal[1, 3] = 3
    code_channels: int = Field(default=32, ge=1, le=256, strict=True)
    width: int = Field(default=64, ge=8, le=512, strict=True)
    code_noise: float = Field(default=0.25, ge=0.0, le=4.0)
    equivariance: float = Field(default=0.5, ge=0.0, le=1.0)
    code_penalty: float = Field(default=1e-3, ge=0.0, le=100.0)
    averaging: float = Field(default=0.05, gt=0.0, le=0.5)
    feature_steps: int = Field(default=600, ge=1, le=1_000_000, strict=True)

    @model_validator(mode="after")
    def _check_code_size(self) -> SpatialConfig:
        if self.latent_dim > MAX_LATENT_DIM:
            raise ValueError(f"a code of at most {MAX_LATENT_DIM} numbers, not {self.latent_dim}")
        return self

    @property
    def patch(self) -> int:
        """Side of the patches of pixels that the networks work on."""
        return 4 if self.image_size.pixels < _LARGE else 8

    @property
    def margins(self) -> Margins:
        """What is added to images, so that both sides are multiples of twice the patch."""
        return margins_to(self.image_size, 2 * self.patch)

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of a code."""
        width, height = self.margins.around(self.image_size)
        return self.code_channels, height // (2 * self.patch), width // (2 * self.patch)

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


def default_config(size: AnySize, channels: int, family: str = "vae", **options: Any) -> AutoencoderConfig:
    """The configuration for images of ``size`` (a side, or width and height, in pixels) with 1 or 3 ``channels``.

    ``generator.models.learning.recommended_model`` also considers other properties of the source.
    ``options`` replace single fields. Raises ``SpecError`` naming the invalid field.
    """
    pixels = as_size(size).pixels
    shape: dict[str, Any] = {"family": family, "channels": channels} | size_fields(size)
    if family == "spatial":
        # at most 512 numbers a code for squares of 64 pixels, and 8 numbers a position beyond
        return parse_config(shape | {"code_channels": 32 if pixels < 48**2 else 8} | options)
    shape["latent_dim"] = (16 if pixels < 16**2 else 24 if pixels < 48**2 else 48) * (2 if channels == 3 else 1)
    if family != "linear":
        shape["width"] = 64 if pixels < 16**2 else 32
    return parse_config(shape | options)


def check_model_size(family: str, size: AnySize) -> None:
    """Raise ``SpecError`` unless models of ``family`` exist for images of ``size``: a side, or width and height."""
    least, most = (MIN_SPATIAL_SIZE, MAX_SPATIAL_SIZE) if family == "spatial" else (MIN_SIZE, MAX_SIZE)
    if not all(least <= side <= most for side in as_size(size)):
        raise SpecError("size", f"{least} to {most} pixels a side for the model {family}", format_size(as_size(size)))


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


def parse_config(value: Any, *, field: str = "model", error: type[InputError] = SpecError) -> AutoencoderConfig:
    """An untrusted value (parsed JSON or YAML) as a configuration; ``error`` names the field that is wrong."""
    family = value.get("family") if isinstance(value, dict) else None
    if family not in _MODELS:
        raise error(f"{field}.family", f"one of {', '.join(FAMILIES)}", repr(family))
    config: AutoencoderConfig = validate(_MODELS[family], value, field=field, error=error)
    return config


def grid_shapes(size: ImageSize) -> tuple[tuple[int, int], ...]:
    """(height, width) of the feature maps from images of ``size`` down to the coarsest grid, at most 4 x 4 positions.

    Each side is half of the one before, rounded up; one of 4 positions or fewer stays as it is.
    """
    grids = [(size.height, size.width)]
    while max(grids[-1]) > _COARSEST:
        height, width = (side if side <= _COARSEST else (side + 1) // 2 for side in grids[-1])
        grids.append((height, width))
    return tuple(grids)
