"""The command train: trains an autoencoder, fits its latent distribution, writes a bundle."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workers.cli.duration import Duration
from workers.cli.encoding import encode_images, encode_progress, fit_progress, progress_callback, tuning_progress
from workers.cli.image_size import Size
from workers.cli.model_options import (
    AUGMENTATION_OPTIONS,
    FAMILIES,
    MODEL_OPTIONS,
    SAMPLER_OPTIONS,
    SAMPLERS,
    sampler_settings,
)
from workers.cli.option_groups import add_options
from workers.cli.output import json_option, show
from workers.cli.progress import progress_bar, progress_lines
from workers.cli.source_options import read_source, source_options, take_source_arguments

if TYPE_CHECKING:
    from generator.models.autoencoders.config import AutoencoderConfig
    from generator.models.autoencoders.replicas import Replicas
    from generator.models.autoencoders.settings import TrainSettings
    from generator.models.latents.config import SamplerSettings
    from generator.models.learning import TrainingPlan, TrainResult
    from generator.models.screening.config import JudgeSettings
    from generator.sources import Source
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
    from generator.models.learning import (
        help_to_train,
        plan_training,
        recommended_judge,
        recommended_model,
        recommended_sampler,
        suits_pretrained,
    )
    from generator.models.screening.config import default_judge

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
    judge_settings = partial(judge_settings_for, judges, judge_width, judge_steps)
    judge_settings(default_judge(32))  # like the settings, checked before anything is read
    device = parse_settings(options).device
    if size is not None:
        _check_size(size, model, start, may_start_pretrained=may_start_pretrained)
    replicas = click.get_current_context().with_resource(launched_replicas(device))
    quiet = as_json or not replicas.is_first
    images = read_source(source, arguments, size=size, channels=channels, quiet=quiet)

    def choose_judge(settings: TrainSettings) -> JudgeSettings | None:
        if not judges:
            return None
        with progress_lines("choosing the judge", None, quiet=quiet):
            return judge_settings(recommended_judge(images, settings, mirrored=judge_mirror))

    if start == "pretrained" or (may_start_pretrained and suits_pretrained(images)):
        _start_pretrained(
            *(images, options, sampler_config, choose_judge, budget, out, replicas),
            as_json=as_json,
            keep_thumbnails=keep_thumbnails,
        )
        return
    settings = _settings_from_scratch(images, model, options)
    config = recommended_model(images, model, **model_options)
    sampler_config = sampler_config or recommended_sampler(images, model)
    chosen_judge = choose_judge(settings) if replicas.is_first else None
    if budget is not None:
        planning = partial(plan_training, images, budget, family=model, settings=settings, judge=chosen_judge)
        plan = _plan(partial(planning, options=model_options), budget, replicas, quiet=quiet)
        config, settings, sampler_config, chosen_judge = plan.config, plan.settings, plan.sampler, plan.judge
    if not replicas.is_first:
        help_to_train(images, config, settings, replicas)
        return
    result = _train(
        *(images, config, settings, sampler_config, chosen_judge, out, replicas),
        quiet=as_json,
        keep_thumbnails=keep_thumbnails,
    )
    for notice in result.fit.notices:
        click.echo(f"notice: {notice}", err=True)
    show(_trained_facts(out, images, result), as_json=as_json, title="bundle written")


def _settings_from_scratch(images: Source, model: str, options: dict[str, Any]) -> TrainSettings:
    """The settings recommended for the images, under those that were asked for."""
    from generator.models.autoencoders.settings import parse_settings
    from generator.models.learning import recommended_settings

    recommended = recommended_settings(images, model, options.get("epochs")).model_dump()
    if options.get("feature_loss") == 0.0:
        recommended.pop("tuning_steps", None)  # it needs the classifier of the feature loss
    return parse_settings(recommended | options)


def _plan(make: Callable[..., TrainingPlan], budget: float, replicas: Replicas, *, quiet: bool) -> TrainingPlan:
    """The plan that the first process makes for all, and says."""
    with progress_lines("planning", None, quiet=quiet):
        plan = replicas.from_first(lambda: make(processes=replicas.count))
    if replicas.is_first:
        click.echo(f"plan for {budget:.0f} s: {plan.describe()}", err=True)
    return plan


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


def _start_pretrained(
    images: Source,
    options: dict[str, Any],
    sampler: SamplerSettings | None,
    choose_judge: Callable[[TrainSettings], JudgeSettings | None],
    budget: float | None,
    out: Path,
    replicas: Replicas,
    *,
    as_json: bool,
    keep_thumbnails: bool,
) -> None:
    from generator.errors import SpecError
    from generator.models.autoencoders.settings import parse_settings
    from generator.models.learning import (
        help_to_train,
        initial_weights,
        plan_pretrained,
        pretrained_network,
        pretrained_sampler,
        pretrained_settings,
        recommended_settings,
    )

    tuned = bool(options.get("tuning_steps"))
    if tuned and budget is not None:
        raise SpecError("budget", "a budget or --tuning-steps, not both", "--budget and --tuning-steps")
    network = pretrained_network(images.size, images.channels)
    recommended = pretrained_settings(images, tuned=tuned).model_dump()
    settings, finetune = parse_settings(recommended | options), "epochs" in options
    split_settings = parse_settings(recommended_settings(images, "spatial").model_dump() | options)
    judge = choose_judge(split_settings) if replicas.is_first else None
    if budget is not None:
        planning = partial(plan_pretrained, images, budget, network.config, settings=settings, judge=judge)
        plan = _plan(planning, budget, replicas, quiet=as_json or not replicas.is_first)
        settings, judge, finetune = plan.settings, plan.judge, plan.trains
    if not replicas.is_first:
        if finetune:
            help_to_train(images, network.config, settings, replicas, initial=initial_weights(network))
        return
    sampler = sampler or pretrained_sampler(images)
    result = encode_images(
        *(network, images, sampler, settings, judge, out),
        finetune=finetune,
        quiet=as_json,
        keep_thumbnails=keep_thumbnails,
        replicas=replicas,
    )
    for notice in result.fit.notices:
        click.echo(f"notice: {notice}", err=True)
    facts = {
        "bundle": str(out),
        "digest": result.digest,
        "model": "pretrained autoencoder",
        "images": len(images),
        "trained_on": result.trained_on,
        "held_out": result.held_out,
        "classes": len(images.class_names),
        "skipped": len(images.skipped),
        "epochs": len(result.history),
        "reconstruction_error": round(result.reconstruction_error, 6),
    }
    show(facts, as_json=as_json, title="bundle written")


def _check_budget(budget: float | None, sampler: str | None, options: dict[str, Any]) -> None:
    """Raise ``SpecError`` for a budget together with what it decides."""
    from generator.errors import SpecError

    decided = [name for name in ("epochs", *SAMPLER_OPTIONS) if name in options] + ["sampler"] * (sampler is not None)
    if budget is not None and decided:
        name = decided[0].replace("_", "-")
        raise SpecError("budget", f"a budget or --{name}, not both", f"--budget and --{name}")


def judge_settings_for(
    members: int, width: int | None, steps: int | None, recommended: JudgeSettings
) -> JudgeSettings | None:
    """The recommended settings of a judge with those that were given; ``None`` for no judge. Raises ``SpecError``."""
    from generator.errors import SpecError
    from generator.models.screening.config import JudgeSettings
    from generator.spec.canonical import validate

    if members == 0:
        return None
    document = recommended.model_dump() | {"members": members}
    document |= {} if width is None else {"width": width}
    document["budget"] |= {} if steps is None else {"steps": steps}
    return validate(JudgeSettings, document, field="judge", error=SpecError)


def _train(
    images: Source,
    config: AutoencoderConfig,
    settings: TrainSettings,
    sampler: SamplerSettings,
    judge: JudgeSettings | None,
    out: Path,
    replicas: Replicas,
    *,
    quiet: bool,
    keep_thumbnails: bool,
) -> TrainResult:
    from generator.models.learning import train_bundle

    steps = settings.epochs * max(1, int(len(images) * (1 - settings.holdout)) // settings.batch)
    with progress_bar("training", steps, quiet=quiet, unit="steps") as bar:
        result = train_bundle(
            images,
            config,
            settings,
            out,
            sampler=sampler,
            judge=judge,
            replicas=replicas,
            on_step=progress_callback(bar, quiet=quiet),
            on_encode=encode_progress(bar, len(images)),
            on_fit=fit_progress(bar, sampler),
            on_tune=tuning_progress(bar, settings.tuning_steps),
            on_stage=bar.stage,
            keep_thumbnails=keep_thumbnails,
        )
    return result


def _trained_facts(out: Path, images: Source, result: TrainResult) -> dict[str, Any]:
    best = next(record for record in reversed(result.history) if record.best)
    return {
        "bundle": str(out),
        "digest": result.digest,
        "images": len(images),
        "trained_on": result.trained_on,
        "held_out": result.held_out,
        "classes": len(images.class_names),
        "skipped": len(images.skipped),
        "epochs": len(result.history),
        "best_epoch": best.epoch,
        "holdout_loss": round(best.holdout_loss, 5),
    }
