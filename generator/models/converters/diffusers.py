"""Autoencoders in the format of the library diffusers: a directory with ``config.json`` and safetensors.

Read are ``AutoencoderTiny`` and ``AutoencoderKL`` (Rombach et al., CVPR 2022), with their factors of scaling and shift:
a code is what a diffusion model sees, (encoder's mean - shift) * scale. Images are in [0, 1] here, in [-1, 1] there.
Neither diffusers itself nor any code in the directory is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from generator.errors import SpecError
from generator.models.autoencoders.graphs.operations import Binary, GroupNorm, Pad, Slice
from generator.models.autoencoders.margins import margins_to
from generator.models.converters.builder import BuiltGraph, GraphBuilder
from generator.models.converters.rewrites import simplify
from generator.models.converters.taesd import soft_clamp, tiny_block
from generator.models.converters.weights import Weights, read_weights
from generator.spec.canonical import read_json, validate
from generator.spec.image_size import AnySize, ImageSize, as_size

CONFIG_FILE, WEIGHTS_FILE = "config.json", "diffusion_pytorch_model.safetensors"
_MAX_CONFIG_BYTES = 1024 * 1024
_EPS = 1e-6  # of every normalisation in AutoencoderKL
# names of the attention's tensors in files written before diffusers 0.15
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

_ActFn = Literal["relu", "silu", "swish", "mish", "gelu"]
_Channels = Annotated[tuple[Annotated[int, Field(ge=1, le=8192)], ...], Field(min_length=1, max_length=12)]
_Blocks = Annotated[tuple[Annotated[int, Field(ge=0, le=64)], ...], Field(min_length=1, max_length=12)]
_Statistics = Annotated[tuple[float, ...], Field(max_length=1024)] | None


class _Config(BaseModel):
    """What both classes have. Fields that do not change the network are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    in_channels: Literal[1, 3] = 3
    out_channels: Literal[1, 3] = 3
    latent_channels: Annotated[int, Field(ge=1, le=1024)] = 4
    shift_factor: float | None = None
    scaling_factor: Annotated[float, Field(gt=0.0)] = 1.0
    act_fn: _ActFn = "silu"

    @property
    def function(self) -> str:
        """``act_fn`` by its usual name."""
        return "silu" if self.act_fn == "swish" else self.act_fn


class TinyConfig(_Config):
    """``config.json`` of an ``AutoencoderTiny``."""

    encoder_block_out_channels: _Channels = (64, 64, 64, 64)
    decoder_block_out_channels: _Channels = (64, 64, 64, 64)
    num_encoder_blocks: _Blocks = (1, 3, 3, 3)
    num_decoder_blocks: _Blocks = (3, 3, 3, 1)
    act_fn: _ActFn = "relu"
    upsample_fn: Literal["nearest", "bilinear"] = "nearest"
    upsampling_scaling_factor: Annotated[int, Field(ge=1, le=8)] = 2


class KlConfig(_Config):
    """``config.json`` of an ``AutoencoderKL``."""

    scaling_factor: Annotated[float, Field(gt=0.0)] = 0.18215
    down_block_types: tuple[Literal["DownEncoderBlock2D"], ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[Literal["UpDecoderBlock2D"], ...] = ("UpDecoderBlock2D",)
    block_out_channels: _Channels = (64,)
    layers_per_block: Annotated[int, Field(ge=1, le=64)] = 1
    act_fn: _ActFn = "silu"
    norm_num_groups: Annotated[int, Field(ge=1, le=1024)] = 32
    latents_mean: _Statistics = None
    latents_std: _Statistics = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True


def convert_diffusers(directory: Path, size: AnySize) -> tuple[BuiltGraph, BuiltGraph]:
    """Encoder and decoder for images of ``size``: a side, or (width, height), in pixels.

    Sides that the autoencoder cannot divide get margins, which are cut out of decoded images. Raises ``SpecError``
    naming the field or tensor.
    """
    document = _read_config(directory)
    kind = document.get("_class_name")
    tensors = read_weights(_weights_file(directory))
    if kind == "AutoencoderTiny":
        tiny = validate(TinyConfig, document, field=CONFIG_FILE, error=SpecError)
        return _convert_tiny(tiny, tensors, as_size(size))
    if kind == "AutoencoderKL":
        kl = validate(KlConfig, document, field=CONFIG_FILE, error=SpecError)
        return _KlConverter(kl, tensors, as_size(size)).convert()
    raise SpecError(f"{CONFIG_FILE}._class_name", "AutoencoderTiny or AutoencoderKL", repr(kind))


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG_FILE
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        hint = "for a whole pipeline, give its folder vae"
        raise SpecError("directory", f"a directory with {CONFIG_FILE}", f"{path} ({error.strerror})", hint) from error
    document = read_json(data, field=CONFIG_FILE, error=SpecError, limit=_MAX_CONFIG_BYTES)
    if not isinstance(document, dict):
        raise SpecError(CONFIG_FILE, "a mapping of fields", type(document).__name__)
    return document


def _weights_file(directory: Path) -> Path:
    """The file of weights; a single one of another name, such as of a variant, is taken too."""
    if (directory / WEIGHTS_FILE).is_file():
        return directory / WEIGHTS_FILE
    found = sorted(directory.glob("*.safetensors"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:5]) or "none"
        hint = "" if found else "weights in .bin files are pickles; save them with safe_serialization=True"
        raise SpecError("directory", f"{WEIGHTS_FILE}, or one .safetensors file", names, hint)
    return found[0]


def _convert_tiny(
    config: TinyConfig, tensors: Mapping[str, np.ndarray], size: ImageSize
) -> tuple[BuiltGraph, BuiltGraph]:
    for name in ("encoder", "decoder"):
        channels, blocks = getattr(config, f"{name}_block_out_channels"), getattr(config, f"num_{name}_blocks")
        if len(channels) != len(blocks):
            expected = f"as many entries as {name}_block_out_channels has ({len(channels)})"
            raise SpecError(f"{CONFIG_FILE}.num_{name}_blocks", expected, len(blocks))
    grown = config.upsampling_scaling_factor ** (len(config.num_decoder_blocks) - 1)
    margins = margins_to(size, max(grown, 2 ** (len(config.num_encoder_blocks) - 1)))
    weights = Weights(tensors, prefix="encoder.layers.")
    builder, number = GraphBuilder("encoder", image=(config.in_channels, size.height, size.width)), 0
    x = builder.extend("image", margins)
    for stage, blocks in enumerate(config.num_encoder_blocks):
        x, number = builder.conv(x, weights, str(number), stride=1 if stage == 0 else 2), number + 1
        for _ in range(blocks):
            x, number = tiny_block(builder, x, weights, str(number), config.function), number + 1
    x = builder.conv(x, weights, str(number))
    weights.finish()
    encoder = builder.finish(_to_code(builder, x, config))
    code = encoder.graph.shapes()[encoder.graph.output]
    weights = Weights(tensors, prefix="decoder.layers.")
    builder = GraphBuilder("decoder", code=code)
    x = soft_clamp(builder, _from_code(builder, "code", config))
    x, number = builder.activation(builder.conv(x, weights, "0"), config.function), 2
    for stage, blocks in enumerate(config.num_decoder_blocks):
        for _ in range(blocks):
            x, number = tiny_block(builder, x, weights, str(number), config.function), number + 1
        if stage < len(config.num_decoder_blocks) - 1:
            x = builder.upsample(x, config.upsampling_scaling_factor, config.upsample_fn)
            number += 1
        x, number = builder.conv(x, weights, str(number)), number + 1
    weights.finish()
    return encoder, simplify(builder.finish(builder.cut(builder.clamp(x, 0.0, 1.0), margins)))


class _KlConverter:
    """Walks through the modules of an ``AutoencoderKL`` in the order of its forward pass."""

    def __init__(self, config: KlConfig, tensors: Mapping[str, np.ndarray], size: ImageSize) -> None:
        self._config, self._margins = config, margins_to(size, 2 ** (len(config.block_out_channels) - 1))
        self._weights = Weights(_with_new_names(tensors))
        self._builder = GraphBuilder("encoder", image=(config.in_channels, size.height, size.width))
        for name in ("down_block_types", "up_block_types"):
            if (count := len(getattr(config, name))) != len(config.block_out_channels):
                expected = f"as many entries as block_out_channels has ({len(config.block_out_channels)})"
                raise SpecError(f"{CONFIG_FILE}.{name}", expected, count)

    def convert(self) -> tuple[BuiltGraph, BuiltGraph]:
        """Encoder and decoder."""
        encoder = self._encoder()
        self._builder = GraphBuilder("decoder", code=encoder.graph.shapes()[encoder.graph.output])
        decoder = self._decoder()
        self._weights.finish()
        return encoder, decoder

    def _encoder(self) -> BuiltGraph:
        builder, weights, config = self._builder, self._weights, self._config
        x = builder.scale(builder.extend("image", self._margins), 2.0, -1.0)
        x = builder.conv(x, weights, "encoder.conv_in")
        for stage in range(len(config.block_out_channels)):
            block = f"encoder.down_blocks.{stage}"
            for layer in range(config.layers_per_block):
                x = self._resnet(x, f"{block}.resnets.{layer}")
            if stage < len(config.block_out_channels) - 1:
                x = builder.add(Pad, x, before=(0, 0), after=(1, 1))
                x = builder.conv(x, weights, f"{block}.downsamplers.0.conv", stride=2, padding=0)
        x = self._end(self._middle(x, "encoder"), "encoder")
        if config.use_quant_conv:
            x = builder.conv(x, weights, "quant_conv")
        x = builder.add(Slice, x, hint="mean", axis=0, start=0, end=config.latent_channels)
        return builder.finish(_to_code(builder, x, config))

    def _decoder(self) -> BuiltGraph:
        builder, weights, config = self._builder, self._weights, self._config
        x = _from_code(builder, "code", config)
        if config.use_post_quant_conv:
            x = builder.conv(x, weights, "post_quant_conv")
        x = self._middle(builder.conv(x, weights, "decoder.conv_in"), "decoder")
        for stage in range(len(config.block_out_channels)):
            block = f"decoder.up_blocks.{stage}"
            for layer in range(config.layers_per_block + 1):
                x = self._resnet(x, f"{block}.resnets.{layer}")
            if stage < len(config.block_out_channels) - 1:
                x = builder.conv(builder.upsample(x, 2), weights, f"{block}.upsamplers.0.conv")
        x = self._end(x, "decoder")
        x = builder.clamp(builder.scale(x, 0.5, 0.5), 0.0, 1.0)
        return simplify(builder.finish(builder.cut(x, self._margins)))

    def _middle(self, x: str, network: str) -> str:
        x = self._resnet(x, f"{network}.mid_block.resnets.0")
        if self._config.mid_block_add_attention:
            x = self._attention(x, f"{network}.mid_block.attentions.0")
        return self._resnet(x, f"{network}.mid_block.resnets.1")

    def _end(self, x: str, network: str) -> str:
        x = self._active_norm(x, f"{network}.conv_norm_out")
        return self._builder.conv(x, self._weights, f"{network}.conv_out")

    def _resnet(self, x: str, prefix: str) -> str:
        builder, weights = self._builder, self._weights
        h = builder.conv(self._active_norm(x, f"{prefix}.norm1"), weights, f"{prefix}.conv1")
        h = builder.conv(self._active_norm(h, f"{prefix}.norm2"), weights, f"{prefix}.conv2")
        shortcut = f"{prefix}.conv_shortcut"
        if f"{shortcut}.weight" in weights:
            x = builder.conv(x, weights, shortcut)
        return builder.add(Binary, h, x, op="add")

    def _attention(self, x: str, prefix: str) -> str:
        """One head over all pixels."""
        builder, weights = self._builder, self._weights
        channels, height, width = builder.shape(x)
        h = builder.norm(GroupNorm, x, weights, f"{prefix}.group_norm", groups=self._config.norm_num_groups, eps=_EPS)
        h = builder.permute(builder.reshape(h, channels, height * width), 1, 0)
        query, keys, values = (builder.linear(h, weights, f"{prefix}.{name}") for name in ("to_q", "to_k", "to_v"))
        h = builder.linear(builder.attention(query, keys, values, heads=1), weights, f"{prefix}.to_out.0")
        h = builder.reshape(builder.permute(h, 1, 0), channels, height, width)
        return builder.add(Binary, h, x, op="add")

    def _active_norm(self, x: str, prefix: str) -> str:
        norm = {"groups": self._config.norm_num_groups, "eps": _EPS}
        x = self._builder.norm(GroupNorm, x, self._weights, prefix, **norm)
        return self._builder.activation(x, self._config.function)


def _to_code(builder: GraphBuilder, x: str, config: TinyConfig | KlConfig) -> str:
    return builder.affine(x, *_code_factors(config))


def _from_code(builder: GraphBuilder, x: str, config: TinyConfig | KlConfig) -> str:
    factor_C, offset_C = _code_factors(config)
    return builder.affine(x, 1.0 / factor_C, -offset_C / factor_C)


def _code_factors(config: TinyConfig | KlConfig) -> tuple[np.ndarray, np.ndarray]:
    """(factor_C, offset_C): code = the encoder's mean * factor + offset.

    With ``latents_mean`` and ``latents_std`` codes are standardised by them first, as pipelines do.
    """
    channels = config.latent_channels
    mean_C, std_C = np.full(channels, config.shift_factor or 0.0), np.ones(channels)
    if isinstance(config, KlConfig) and config.latents_mean is not None and config.latents_std is not None:
        for name in ("latents_mean", "latents_std"):
            if len(getattr(config, name)) != channels:
                raise SpecError(f"{CONFIG_FILE}.{name}", f"{channels} numbers", len(getattr(config, name)))
        mean_C, std_C = np.array(config.latents_mean), np.array(config.latents_std)
        if (std_C <= 0.0).any():
            raise SpecError(f"{CONFIG_FILE}.latents_std", "numbers above 0", float(std_C.min()))
    factor_C = config.scaling_factor / std_C
    return factor_C, -mean_C * factor_C


def _with_new_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors of the attention under today's names; those that were convolutions of one pixel as matrices."""
    renamed = dict[str, np.ndarray]()
    for name, tensor in tensors.items():
        parts = name.split(".")
        if "attentions" in parts:
            parts = [_OLD_ATTENTION.get(part, part) for part in parts]
            tensor = tensor[:, :, 0, 0] if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor
        renamed[".".join(parts)] = tensor
    return renamed
