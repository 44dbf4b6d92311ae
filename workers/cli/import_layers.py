"""The command import layers: makes a bundle of a decoder that is a list of layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workers.cli.model_options import SAMPLER_OPTIONS, sampler_settings
from workers.cli.option_groups import add_options
from workers.cli.output import json_option, show

if TYPE_CHECKING:
    from generator.models.autoencoders.config import AutoencoderConfig

_SAMPLERS = ("gaussian", "mixture", "flow", "polar")


@click.command("layers")
@click.argument("decoder", type=click.Path(path_type=Path))
@click.argument("weights", type=click.Path(path_type=Path))
@click.option(
    "--codes", type=click.Path(path_type=Path), help="A .npz file: codes (N, D), optionally labels and class_names."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory for the bundle; must not exist.")
@click.option(
    "--sampler",
    type=click.Choice(_SAMPLERS),
    help="Latent distribution to fit to the codes.  [default: mixture]",
)
@add_options(SAMPLER_OPTIONS)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Seed of the fit.")
@json_option
def layers_command(
    decoder: Path,
    weights: Path,
    codes: Path | None,
    out: Path,
    sampler: str | None,
    seed: int,
    as_json: bool,
    **given: Any,
) -> None:
    """Make a bundle of an existing decoder: DECODER lists its layers (JSON), WEIGHTS has their weights (safetensors).

    Without --codes, the latent distribution is a standard normal, as for a GAN's generator.
    """
    from generator.errors import SpecError
    from generator.models.autoencoders.imported.layers import LayersConfig
    from generator.models.bundle.save import check_new_directory
    from generator.models.learning import import_decoder, read_codes, read_weights

    check_new_directory(out)
    options = {name: value for name, value in given.items() if value is not None}
    if codes is None and (sampler or options):
        raise SpecError("codes", "codes to fit a latent distribution to", "none", "give --codes FILE.npz")
    settings = sampler_settings(sampler or "mixture", options)
    imported = import_decoder(
        _read_decoder(decoder),
        read_weights(weights),
        None if codes is None else read_codes(codes),
        out,
        sampler=settings,
        seed=seed,
    )
    for notice in imported.notices:
        click.echo(f"notice: {notice}", err=True)
    config = imported.config
    facts = {
        "bundle": str(out),
        "digest": imported.digest,
        "image": describe_image(config),
        "latent_dim": config.latent_dim,
        "layers": len(config.layers) if isinstance(config, LayersConfig) else 0,
        "sampler": "standard normal prior" if codes is None else settings.family,
    }
    show(facts, as_json=as_json, title="bundle written")


def describe_image(config: AutoencoderConfig) -> str:
    """Height, width and colours of the images, for the facts of a command."""
    width, height = config.image_size
    return f"{height} x {width}, {'RGB' if config.channels == 3 else 'grey'}"


def _read_decoder(path: Path) -> bytes:
    from generator.errors import SpecError
    from generator.models.autoencoders.imported.document import MAX_DOCUMENT_BYTES

    try:
        with path.open("rb") as file:
            return file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise SpecError("decoder", "a JSON file that can be read", f"{path} ({error.strerror})") from error
