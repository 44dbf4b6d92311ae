"""The command import: makes a bundle of a decoder or autoencoder that was made elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from workers.cli.encoding import encode_images
from workers.cli.image_size import Size
from workers.cli.import_layers import describe_image, layers_command
from workers.cli.judge_options import JudgeOptions
from workers.cli.model_options import SAMPLER_OPTIONS, sampler_settings
from workers.cli.option_groups import add_options
from workers.cli.output import json_option, show
from workers.cli.source_options import SOURCE_OPTIONS, SourceArguments, read_source, take_source_arguments

if TYPE_CHECKING:
    from generator.models.latents.config import SamplerSettings
    from generator.models.learning import ImportedNetwork
    from generator.sources import Source
    from generator.spec.image_size import ImageSize

F = TypeVar("F", bound=Callable[..., Any])
Convert = Callable[["ImageSize | None"], "ImportedNetwork"]

_SAMPLERS = ("auto", "gaussian", "mixture", "flow", "transport")
_DEFAULT_SIZE, _LARGEST_SIDE = 64, 1024  # pixels; the default where neither network nor images say it
_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "out": click.option(
        "--out", required=True, type=click.Path(path_type=Path), help="Directory for the bundle; must not exist."
    ),
    "size": click.option(
        "--size",
        type=Size(_LARGEST_SIDE),
        help="Size of the images in pixels, 64 or 96x64 (width x height).  [default: 64]",
    ),
    "encode": click.option(
        "--encode",
        "source",
        metavar="SOURCE",
        help="Images to encode; the latent distribution is fitted to their codes.",
    ),
    **SOURCE_OPTIONS,
    "finetune": click.option(
        "--finetune",
        type=click.IntRange(1, 10_000),
        metavar="EPOCHS",
        help="Train the decoder further on the images; the encoder stays as it is.",
    ),
    "codes": click.option(
        "--codes", type=click.Path(path_type=Path), help="A .npz file: codes (N, D), optionally labels and class_names."
    ),
    "sampler": click.option(
        "--sampler",
        type=click.Choice(_SAMPLERS),
        help="Latent distribution to fit; auto chooses by the codes.  [default: auto]",
    ),
    **SAMPLER_OPTIONS,
    "truncation": click.option(
        "--truncation", type=float, help="Without images or codes: restricts the standard normal prior to [-T, T]."
    ),
    "judges": click.option(
        "--judges", type=int, default=1, show_default=True, help="Number of classifiers that check labels; 0 for none."
    ),
    "seed": click.option(
        "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Seed of split, fit and judge."
    ),
    "device": click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, or cuda:N."),
}


class ImportGroup(click.Group):
    """Arguments that begin with no subcommand are those of ``layers``: ``import DECODER WEIGHTS``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["layers", *args]
        return super().parse_args(ctx, args)


@click.group("import", cls=ImportGroup)
def import_command() -> None:
    """Make a bundle of a decoder or autoencoder that was made elsewhere. No code of it is run, nothing is unpickled.

    With --encode SOURCE an autoencoder is fitted to your images: they become codes, a latent distribution is fitted to
    the codes, and a judge and a copy index are made, as by train. Without images, codes come from a file (--codes) or
    from the standard normal distribution that generators are trained for.
    """


import_command.add_command(layers_command)


@import_command.command("diffusers")
@click.argument("directory", type=click.Path(path_type=Path))
@add_options(_OPTIONS)
@json_option
def diffusers_command(directory: Path, **given: Any) -> None:
    """An AutoencoderKL or AutoencoderTiny: DIRECTORY has config.json and safetensors, as diffusers saves them."""
    from generator.models.converters.diffusers import convert_diffusers
    from generator.models.learning import join_graphs

    _import(lambda size: join_graphs(*convert_diffusers(directory, size or _DEFAULT_SIZE)), **given)


@import_command.command("taesd")
@click.option("--encoder", type=click.Path(path_type=Path), help="State dict of the encoder, safetensors.")
@click.option("--decoder", required=True, type=click.Path(path_type=Path), help="State dict of the decoder.")
@add_options(_OPTIONS)
@json_option
def taesd_command(encoder: Path | None, decoder: Path, **given: Any) -> None:
    """A TAESD, the tiny autoencoder of a latent diffusion model; variants are recognised by their tensors."""
    from generator.models.converters.taesd import convert_taesd
    from generator.models.learning import join_graphs, read_weights

    weights = None if encoder is None else read_weights(encoder), read_weights(decoder)
    _import(lambda size: join_graphs(*convert_taesd(*weights, size or _DEFAULT_SIZE)), **given)


@import_command.command("onnx")
@click.argument("decoder", type=click.Path(path_type=Path))
@click.option("--encoder", type=click.Path(path_type=Path), help="ONNX file of the encoder.")
@click.option("--symmetric", is_flag=True, help="The networks speak of pixels in [-1, 1] instead of [0, 1].")
@click.option(
    "--class-names", type=click.Path(path_type=Path), help="Of a generator of classes: a text file, one name a line."
)
@add_options(_OPTIONS)
@json_option
def onnx_command(decoder: Path, encoder: Path | None, symmetric: bool, class_names: Path | None, **given: Any) -> None:
    """A decoder, or a generator of noise and class, exported to ONNX (opset 13 or later, weights inside the file)."""
    from generator.models.converters.onnx import convert_onnx
    from generator.models.learning import join_graphs

    names = () if class_names is None else _read_names(class_names)

    def convert(size: ImageSize | None) -> ImportedNetwork:
        found = convert_onnx(decoder, encoder, size=size, symmetric=symmetric)
        return join_graphs(found.encoder, found.decoder, found.classes)

    _import(convert, class_names=names, **given)


def _import(
    convert: Convert,
    *,
    out: Path,
    size: ImageSize | None,
    source: str | None,
    codes: Path | None,
    finetune: int | None,
    truncation: float | None,
    as_json: bool,
    class_names: tuple[str, ...] = (),
    **given: Any,
) -> None:
    from generator.models.bundle.save import check_new_directory

    check_new_directory(out)
    arguments = take_source_arguments(given)
    fields = {name: given.pop(name) for name in ("judges", "seed", "device")}
    sampler = given.pop("sampler")
    options = {name: value for name, value in given.items() if value is not None}
    _check_choice(source, codes, finetune, truncation, fitted=bool(sampler or options))
    settings = None if sampler in (None, "auto") and not options else sampler_settings(sampler or "transport", options)
    network = convert(size) if source is None or size is not None else None
    if source is None:
        assert network is not None
        _without_images(network, codes, settings, truncation, out, class_names, seed=fields["seed"], as_json=as_json)
        return
    _with_images(
        network, convert, source, arguments, settings, out, size=size, finetune=finetune, as_json=as_json, **fields
    )


def _check_choice(
    source: str | None, codes: Path | None, finetune: int | None, truncation: float | None, *, fitted: bool
) -> None:
    from generator.errors import SpecError

    if source is not None and codes is not None:
        raise SpecError("encode", "images or codes, not both", "--encode and --codes")
    if finetune is not None and source is None:
        raise SpecError("finetune", "images to train on", "none", "give --encode SOURCE")
    if truncation is not None and (source is not None or codes is not None):
        raise SpecError("truncation", "a prior instead of images or codes", "--truncation with them")
    if fitted and source is None and codes is None:
        raise SpecError(
            "sampler", "codes to fit a latent distribution to", "none", "give --encode SOURCE or --codes FILE"
        )


def _without_images(
    network: ImportedNetwork,
    codes: Path | None,
    settings: SamplerSettings | None,
    truncation: float | None,
    out: Path,
    class_names: tuple[str, ...],
    *,
    seed: int,
    as_json: bool,
) -> None:
    from generator.errors import SpecError
    from generator.models.latents.config import MixtureSettings, PriorSettings, TransportSettings
    from generator.models.learning import import_network, read_codes
    from generator.spec.canonical import validate

    if codes is None:
        settings = validate(PriorSettings, {"truncation": truncation}, field="prior", error=SpecError)
    elif settings is None:
        settings = TransportSettings(map=None) if len(network.config.code_shape) > 1 else MixtureSettings()
    given_codes = None if codes is None else read_codes(codes)
    imported = import_network(network, given_codes, out, sampler=settings, class_names=class_names, seed=seed)
    notices = list(imported.notices)
    if codes is None and network.encoder is not None:
        notices.append("no images were encoded: samples of a standard normal mean something to generators only")
    _show(network, out, imported.digest, notices, {"sampler": settings.family}, as_json=as_json)


def _with_images(
    network: ImportedNetwork | None,
    convert: Convert,
    source: str,
    arguments: SourceArguments,
    settings: SamplerSettings | None,
    out: Path,
    *,
    size: ImageSize | None,
    finetune: int | None,
    judges: int,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    from generator.models.autoencoders.settings import parse_settings
    from generator.models.learning import recommended_settings

    chosen = {"seed": seed, "device": device, **({} if finetune is None else {"epochs": finetune})}
    parse_settings(chosen)
    asked = JudgeOptions(judges)
    asked.check()
    channels = None if network is None else network.config.channels
    images = read_source(source, arguments, size=size, channels=channels, quiet=as_json)
    network = convert(images.size) if network is None else network
    if network.config.channels != images.channels:
        images = read_source(source, arguments, size=images.size, channels=network.config.channels, quiet=True)
    train = parse_settings(recommended_settings(images, "spatial").model_dump() | chosen)
    settings = settings or _default_sampler(network, images)
    judge = asked.choose(images, train, quiet=as_json)
    result = encode_images(network, images, settings, train, judge, out, finetune=finetune is not None, quiet=as_json)
    facts = {
        "images": len(images),
        "classes": len(images.class_names),
        "reconstruction_error": round(result.reconstruction_error, 6),
        "finetuned_epochs": len(result.history),
        "sampler": settings.family,
    }
    _show(network, out, result.digest, list(result.fit.notices), facts, as_json=as_json)


def _default_sampler(network: ImportedNetwork, images: Source) -> SamplerSettings:
    """For codes that are grids, the base of a transport, as a map takes long and adds little; else as for training."""
    from generator.models.latents.config import TransportSettings
    from generator.models.learning import recommended_sampler

    return TransportSettings(map=None) if len(network.config.code_shape) > 1 else recommended_sampler(images)


def _show(
    network: ImportedNetwork, out: Path, digest: str, notices: list[str], facts: dict[str, Any], *, as_json: bool
) -> None:
    for notice in notices:
        click.echo(f"notice: {notice}", err=True)
    config = network.config
    weights = sum(array.size for part in (network.decoder, network.encoder or {}) for array in part.values())
    described = {
        "bundle": str(out),
        "digest": digest,
        "image": describe_image(config),
        "code": " x ".join(map(str, config.code_shape)),
        "operations": len(config.decoder.nodes) + (0 if config.encoder is None else len(config.encoder.nodes)),
        "weights": weights,
        **({"classes": config.classes} if config.classes else {}),
    }
    show(described | facts, as_json=as_json, title="bundle written")


def _read_names(path: Path) -> tuple[str, ...]:
    from generator.errors import SpecError
    from generator.sources.base import check_names

    try:
        with path.open("rb") as file:
            text = file.read(2**24).decode()
    except (OSError, UnicodeDecodeError) as unread:
        raise SpecError("class_names", "a text file with one name a line", f"{path} ({unread})") from unread
    return check_names([line.strip() for line in text.splitlines() if line.strip()], field="class_names")
