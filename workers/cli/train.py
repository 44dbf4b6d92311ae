"""The command train: trains an autoencoder, fits its latent distribution, writes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workers.cli.duration import Duration
from workers.cli.image_size import Size
from workers.cli.judge_options import JudgeOptions
from workers.cli.model_options import (
    AUGMENTATION_OPTIONS,
    FAMILIES,
    MODEL_OPTIONS,
    SAMPLER_OPTIONS,
    SAMPLERS,
    sampler_settings,
)
from workers.cli.option_groups import add_options
from workers.cli.output import json_option
from workers.cli.source_options import read_source, source_options, take_source_arguments
from workers.cli.training import TrainingRequest, train_from_scratch, train_pretrained

if TYPE_CHECKING:
    from generator.spec.image_size import AnySize, ImageSize


@click.command("train")
@click.argument("source")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory for the bundle; must not exist.")
@click.option(
    "--size",
    type=Size(),
    help="Image size in pixels, 64 or 96x64 (width x height); sides of 8 to 128, spatial and pretrained to 512.",
)
@click.option("--channels", type=int, help="1 (grey) or 3 (colour); by default as in the source.")
@source_options
@click.option(
    "--from",
    "start",
    type=click.Choice(("pretrained", "scratch")),
    help="Encode with the pretrained autoencoder of photographs, or train one.  [default: pretrained for colour images"
    " of 32 pixels a side or more, unless --model or an option of a model is given]",
)
@click.option("--model", type=click.Choice(FAMILIES), help="Autoencoder family to train.  [default: vae]")
@add_options(MODEL_OPTIONS)
@click.option(
    "--budget",
    type=Duration(),
    help="Time for all of the training on this machine (90s, 20m, 1h30m); sets width, epochs and latent distribution.",
)
@click.option(
    "--epochs",
    type=int,
    help="Maximum passes over the images; by default more for fewer images. From pretrained: passes that train its"
    " decoder further, by default none.",
)
@click.option("--batch", type=int, help="Images per step.")
@click.option("--learning-rate", type=float, help="Peak learning rate.")
@click.option("--reconstruction", help="Pixel loss: bce or mse.")
@click.option(
    "--feature-loss",
    type=float,
    help="Sharper images: weight of a feature loss.  [default: 0; 1000 for a vae of many labelled photographs]",
)
@click.option("--patch-loss", type=float, help="Sharper images: weight of the loss of a patch discriminator.")
@click.option(
    "--tuning-steps",
    type=int,
    help="Sharper samples: steps that train the decoder further on sampled codes, after the fit; needs labels and a"
    " feature loss.  [default: 0; 1500 for a vae of many labelled photographs, from scratch]",
)
@add_options(AUGMENTATION_OPTIONS)
@click.option("--holdout", type=float, help="Share of the images held out for early stopping and the fit.")
@click.option("--patience", type=int, help="Epochs without improvement before stopping.")
@click.option("--seed", type=int, help="Seed of weights, image order and noise.")
@click.option("--device", help="auto, cpu, cuda, or cuda:N.")
@click.option(
    "--precision",
    help="Of the autoencoder's training: float32, bfloat16, or auto, which is bfloat16 on CUDA devices that have it."
    "  [default: auto]",
)
@click.option(
    "--sampler",
    type=click.Choice(SAMPLERS),
    help="Latent distribution.  [default: mixture; flow for many photographs]",
)
@add_options(SAMPLER_OPTIONS)
@click.option(
    "--judges",
    type=int,
    default=1,
    show_default=True,
    help="Number of judges: classifiers that check labels; 0 for none.",
)
@click.option("--judge-width", type=int, help="Feature maps of the judges.  [default: 16; 32 for many photographs]")
@click.option(
    "--judge-steps", type=int, help="Training steps of the judges.  [default: 600; 1400 for many photographs]"
)
@click.option(
    "--judge-mirror/--no-judge-mirror",
    default=None,
    help="Whether mirrored images keep their class, so that judges learn from them and look at them.  [default: no;"
    " measured on held-out images for many photographs]",
)
@click.option(
    "--keep-thumbnails",
    is_flag=True,
    help="Keep small pictures of the training images in the bundle, to show them beside samples, and of some held-out"
    " images beside their reconstructions. They are real images: whoever has the bundle can look at them.",
)
@click.option(
    "--pictures/--no-pictures",
    default=True,
    show_default=True,
    help="Draw samples beside the bundle (OUT.samples.jpg), every half minute while the autoencoder is trained, and at"
    " the end.",
)
@json_option
def train_command(
    source: str,
    out: Path,
    size: ImageSize | None,
    channels: int | None,
    start: str | None,
    model: str | None,
    sampler: str | None,
    judges: int,
    judge_width: int | None,
    judge_steps: int | None,
    judge_mirror: bool | None,
    budget: float | None,
    keep_thumbnails: bool,
    pictures: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Train an autoencoder on SOURCE, or take the pretrained one; fit its latent space, and write a bundle.

    SOURCE is `digits` (bundled), a folder with one subfolder per class, Hugging Face Parquet, WebDataset tars, a .zip
    of images, or a .npz file: a path, a pattern, or an s3:// URL. `latentmill sources SOURCE` shows what would be read.
    Below, "many photographs" means at least 10,000 colour images of 32 pixels or more.

    A stopped training continues from its checkpoint when the same command is run again.

    On several devices: `torchrun --nproc-per-node=4 --no-python latentmill train ...`. They share the batches of the
    autoencoder's training; the first process does all else.
    """
    from generator.models.autoencoders.replicas import launched_replicas
    from generator.models.autoencoders.settings import parse_settings
    from generator.models.bundle.save import check_new_directory
    from generator.models.learning import suits_pretrained
    from generator.spec.launch import launched_rank

    check_new_directory(out)
    arguments = take_source_arguments(given)
    options = {name: value for name, value in given.items() if value is not None}
    _check_budget(budget, sampler, options)
    model_options = {name: options.pop(name) for name in MODEL_OPTIONS if name in options}
    may_start_pretrained = _may_start_pretrained(start, model, model_options)
    model = model or "vae"
    augmentation = {
        name.removeprefix("augment_"): options.pop(name) for name in AUGMENTATION_OPTIONS if name in options
    }
    options |= {"augmentation": augmentation} if augmentation else {}
    sampler_given = sampler is not None or any(name in options for name in SAMPLER_OPTIONS)
    sampler_config = sampler_settings(sampler or "mixture", options) if sampler_given else None
    judge = JudgeOptions(judges, judge_width, judge_steps, judge_mirror)
    judge.check()  # like the settings, checked before anything is read
    device = parse_settings(options).device
    if size is not None:
        _check_size(size, model, start, may_start_pretrained=may_start_pretrained)
    request = TrainingRequest(
        out, model, model_options, options, sampler_config, judge, budget, keep_thumbnails, pictures, as_json
    )
    rank, count = launched_rank()
    if count > 1 and rank == 0:
        click.echo(f"notice: waiting for {count} processes that train together (WORLD_SIZE)", err=True)
    with launched_replicas(device) as replicas:
        quiet = as_json or not replicas.is_first
        images = read_source(source, arguments, size=size, channels=channels, quiet=quiet)
        from_pretrained = start == "pretrained" or (may_start_pretrained and suits_pretrained(images))
        train = train_pretrained if from_pretrained else train_from_scratch
        train(request, images, replicas)


def _may_start_pretrained(start: str | None, model: str | None, model_options: dict[str, Any]) -> bool:
    """Whether the pretrained autoencoder may be taken. Raises ``SpecError`` if it is asked for beside another."""
    from generator.errors import SpecError

    trained = ([] if model is None else ["model"]) + list(model_options)
    if start == "pretrained" and trained:
        got = f"--from pretrained, and --{trained[0].replace('_', '-')}"
        raise SpecError("from", "the pretrained autoencoder, or an autoencoder to train", got)
    return start != "scratch" and not trained


def _check_size(size: AnySize, model: str, start: str | None, *, may_start_pretrained: bool) -> None:
    """Raise ``SpecError`` for a size that no autoencoder that may be taken has, before anything is read."""
    from generator.models.autoencoders.config import MAX_SIZE, check_model_size
    from generator.models.learning import pretrained_network
    from generator.spec.image_size import as_size

    if start == "pretrained" or (may_start_pretrained and max(as_size(size)) > MAX_SIZE):
        pretrained_network(size, 3)
    else:
        check_model_size(model, size)


def _check_budget(budget: float | None, sampler: str | None, options: dict[str, Any]) -> None:
    """Raise ``SpecError`` for a budget together with what it decides."""
    from generator.errors import SpecError

    decided = [name for name in ("epochs", *SAMPLER_OPTIONS) if name in options] + ["sampler"] * (sampler is not None)
    if budget is not None and decided:
        name = decided[0].replace("_", "-")
        raise SpecError("budget", f"a budget or --{name}, not both", f"--budget and --{name}")
