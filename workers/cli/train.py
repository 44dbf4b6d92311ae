"""Commands that make bundles: train, fit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from workers.cli.output import json_option, progress_bar, show

if TYPE_CHECKING:
    from generator.models.autoencoders.config import AutoencoderConfig
    from generator.models.autoencoders.settings import TrainSettings
    from generator.models.autoencoders.training import Progress
    from generator.models.latents.config import SamplerSettings
    from generator.models.learning import TrainResult
    from generator.models.screening.config import JudgeSettings
    from generator.sources import Source

F = TypeVar("F", bound=Callable[..., Any])
_FAMILIES = ("linear", "stacked", "stacked-layerwise", "denoising", "vae", "adversarial", "regularized")
_SAMPLERS = ("gaussian", "mixture", "flow", "polar")
_MODEL_OPTIONS = {
    "latent_dim": click.option(
        "--latent-dim", type=int, help="Dimensions of a code; by default by size and colour, 128 for many photographs."
    ),
    "width": click.option("--width", type=int, help="Feature maps of the first layer (all but linear)."),
    "patch": click.option("--patch", type=int, help="linear: side of the patches; by default the whole image."),
    "pretraining": click.option(
        "--pretraining", type=float, help="stacked-layerwise: share of the steps for single layers."
    ),
    "noise": click.option("--noise", help="denoising: gaussian, masking, or salt-and-pepper."),
    "amount": click.option("--amount", type=float, help="denoising: standard deviation, or share of the pixels."),
    "beta": click.option("--beta", type=float, help="vae: weight of the KL term; 1 is the evidence lower bound."),
    "warmup": click.option("--warmup", type=float, help="vae: share of the steps in which beta grows from 0."),
    "free_bits": click.option(
        "--free-bits", type=float, help="vae: nats that each latent dimension carries for nothing."
    ),
    "adversary": click.option("--adversary", type=float, help="adversarial: weight of the discriminator."),
    "conditioned": click.option(
        "--conditioned", is_flag=True, default=None, help="adversarial: a prior for every class."
    ),
    "code_penalty": click.option("--code-penalty", type=float, help="regularized: weight of |z|^2 / 2."),
    "decoder_penalty": click.option("--decoder-penalty", help="regularized: l2, gradient, or spectral."),
    "decoder_weight": click.option("--decoder-weight", type=float, help="regularized: weight of that penalty."),
}
_AUGMENTATION_OPTIONS = {
    "augment_shift": click.option("--augment-shift", type=int, help="While training, shift images: pixels at most."),
    "augment_rotation": click.option("--augment-rotation", type=float, help="… turn them: degrees at most."),
    "augment_scale": click.option("--augment-scale", type=float, help="… stretch them: share of the size at most."),
    "augment_shear": click.option("--augment-shear", type=float, help="… shear them: degrees at most."),
    "augment_elastic": click.option("--augment-elastic", type=float, help="… bend them: pixels, standard deviation."),
    "augment_mirror": click.option("--augment-mirror", is_flag=True, default=None, help="… mirror half of them."),
}
SAMPLER_OPTIONS = {
    "covariance": click.option("--covariance", help="gaussian, mixture: full, diagonal, or tied."),
    "clusters": click.option("--clusters", type=int, help="mixture, polar: clusters a class, instead of choosing."),
    "clusters_by": click.option("--clusters-by", help="mixture: choose on held-out codes by likelihood, or bic."),
    "transforms": click.option("--transforms", type=int, help="flow: coupling layers."),
    "hidden": click.option("--hidden", type=int, help="flow: units of each hidden layer."),
    "flow_epochs": click.option("--flow-epochs", type=int, help="flow: passes over the codes, at most."),
    "flow_rate": click.option("--flow-rate", type=float, help="flow: learning rate."),
    "flow_decay": click.option("--flow-decay", type=float, help="flow: weight decay; more where codes are few."),
}
_SAMPLER_FIELDS = {"flow_epochs": "epochs", "flow_rate": "learning_rate", "flow_decay": "weight_decay"}


def add_options(options: dict[str, Callable[[F], F]]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in reversed(options.values()):
            command = option(command)
        return command

    return decorate


def sampler_settings(family: str, options: dict[str, Any]) -> SamplerSettings:
    """The settings in ``options``, which are taken out of it. Raises ``SpecError`` for one of another family."""
    from generator.models.latents.config import parse_sampler

    chosen = {_SAMPLER_FIELDS.get(name, name): options.pop(name) for name in SAMPLER_OPTIONS if name in options}
    return parse_sampler({"family": family} | chosen)


@click.command("train")
@click.argument("source")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where the bundle is written; must be new.")
@click.option("--size", type=int, help="Side of the images in pixels, 8 to 128; resized and centre-cropped.")
@click.option("--channels", type=int, help="1 grey or 3 colour; by default what the source has.")
@click.option("--skip-bad", is_flag=True, help="Count broken images and go on without them.")
@click.option("--model", type=click.Choice(_FAMILIES), default="vae", show_default=True, help="Autoencoder family.")
@add_options(_MODEL_OPTIONS)
@click.option("--epochs", type=int, help="Passes over the images at most; by default more for fewer images.")
@click.option("--batch", type=int, help="Images per step.")
@click.option("--learning-rate", type=float, help="Peak learning rate.")
@click.option("--reconstruction", help="Loss of a pixel: bce or mse.")
@click.option(
    "--feature-loss",
    type=float,
    help="Sharper images: weight of a classifier's features.  [default: 0; 1000: a vae of many labelled photographs]",
)
@click.option("--patch-loss", type=float, help="Sharper images: weight of a patch discriminator.")
@add_options(_AUGMENTATION_OPTIONS)
@click.option("--holdout", type=float, help="Share of the images held out for early stopping and the fit.")
@click.option("--patience", type=int, help="Epochs without improvement before stopping.")
@click.option("--seed", type=int, help="Seed of weights, order and noise.")
@click.option("--device", help="auto, cpu, cuda, or cuda:N.")
@click.option(
    "--sampler",
    type=click.Choice(_SAMPLERS),
    help="Latent distribution.  [default: mixture; flow for many photographs]",
)
@add_options(SAMPLER_OPTIONS)
@click.option("--judges", type=int, default=1, show_default=True, help="Classifiers that doubt labels; 0 for none.")
@click.option("--judge-width", type=int, help="Their feature maps.  [default: 16]")
@click.option("--judge-steps", type=int, help="Their training steps.  [default: 600]")
@json_option
def train_command(
    source: str,
    out: Path,
    size: int | None,
    channels: int | None,
    skip_bad: bool,
    model: str,
    sampler: str | None,
    judges: int,
    judge_width: int | None,
    judge_steps: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Train an autoencoder on SOURCE, fit its latent space, and write a bundle.

    SOURCE is `digits` (bundled), a folder with one folder per class, a .npz file, or Hugging Face image Parquet.
    In the defaults below, many photographs are 10,000 images in colour, of 32 pixels or more.

    A run that was stopped goes on from its checkpoint when the same command is given again.
    """
    from generator.models.autoencoders.settings import parse_settings
    from generator.models.bundle.save import check_new_directory
    from generator.models.learning import recommended_model, recommended_sampler, recommended_settings
    from generator.sources import load_source

    check_new_directory(out)
    options = {name: value for name, value in given.items() if value is not None}
    of_model = {name: options.pop(name) for name in _MODEL_OPTIONS if name in options}
    changes = {name.removeprefix("augment_"): options.pop(name) for name in _AUGMENTATION_OPTIONS if name in options}
    options |= {"augmentation": changes} if changes else {}
    chosen = sampler is not None or any(name in options for name in SAMPLER_OPTIONS)
    fitted_by = sampler_settings(sampler or "mixture", options) if chosen else None
    judge_of = partial(_judge_settings, judges, judge_width, judge_steps)
    judge_of(32)  # like the settings, refused before anything is read
    parse_settings(options)
    with progress_bar("reading", None, quiet=as_json) as bar:
        images = load_source(
            source, size=size, channels=channels, skip_bad=skip_bad, progress=lambda done, _: bar(done)
        )
    _show_skipped(images, quiet=as_json)
    settings = parse_settings(recommended_settings(images, model, options.get("epochs")).model_dump() | options)
    config = recommended_model(images, model, **of_model)
    fitted_by = fitted_by or recommended_sampler(images)
    learned = _train(images, config, settings, fitted_by, judge_of(images.size), out, quiet=as_json)
    for notice in learned.fit.notices:
        click.echo(f"notice: {notice}", err=True)
    show(_trained_facts(out, images, learned), as_json=as_json, title="bundle written")


def _judge_settings(members: int, width: int | None, steps: int | None, size: int) -> JudgeSettings | None:
    """The judge's settings for images of ``size``; ``None`` for no judge. Raises ``SpecError``."""
    from generator.errors import SpecError
    from generator.models.screening.config import JudgeSettings, default_judge
    from generator.spec.canonical import validate

    if members == 0:
        return None
    document = default_judge(size).model_dump() | {"members": members}
    document |= {} if width is None else {"width": width}
    document["budget"] |= {} if steps is None else {"steps": steps}
    return validate(JudgeSettings, document, field="judge", error=SpecError)


def _show_skipped(images: Source, *, quiet: bool) -> None:
    for skipped in images.skipped if not quiet else ():
        click.echo(f"skipped {skipped.file}: {skipped.reason}", err=True)


def _train(
    images: Source,
    config: AutoencoderConfig,
    settings: TrainSettings,
    sampler: SamplerSettings,
    judge: JudgeSettings | None,
    out: Path,
    *,
    quiet: bool,
) -> TrainResult:
    from generator.models.learning import train_bundle

    steps = settings.epochs * max(1, int(len(images) * (1 - settings.holdout)) // settings.batch)
    with progress_bar("training", steps, quiet=quiet, unit="steps") as bar:
        learned = train_bundle(
            images, config, settings, out, sampler=sampler, judge=judge, on_step=_progress_callback(bar, quiet=quiet)
        )
        bar(steps)
    return learned


def _progress_callback(bar: Callable[[int], None], *, quiet: bool) -> Callable[[Progress], None]:
    """Moves the bar; a first step in a later epoch means that a stopped run is taken up again."""
    began = False

    def follow(at: Progress) -> None:
        nonlocal began
        if not began and at.epoch > 1 and not quiet:
            click.echo(f"going on after epoch {at.epoch - 1}, from the checkpoint of a stopped run", err=True)
        began = True
        bar((at.epoch - 1) * at.steps + at.step)

    return follow


def _trained_facts(out: Path, images: Source, learned: TrainResult) -> dict[str, Any]:
    best = next(record for record in reversed(learned.history) if record.best)
    return {
        "bundle": str(out),
        "digest": learned.digest,
        "images": len(images),
        "trained_on": learned.trained_on,
        "held_out": learned.held_out,
        "classes": len(images.class_names),
        "skipped": len(images.skipped),
        "epochs": len(learned.history),
        "best_epoch": best.epoch,
        "holdout_loss": round(best.holdout_loss, 5),
    }
