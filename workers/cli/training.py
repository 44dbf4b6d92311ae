"""How train makes a bundle: from scratch, or from the pretrained autoencoder; in one process, or in several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workers.cli.encoding import encode_images, training_progress
from workers.cli.judge_options import JudgeOptions
from workers.cli.output import show
from workers.cli.progress import progress_bar, progress_lines
from workers.cli.training_picture import TrainingPicture

if TYPE_CHECKING:
    from generator.models.autoencoders.config import AutoencoderConfig
    from generator.models.autoencoders.replicas import Replicas
    from generator.models.autoencoders.settings import TrainSettings
    from generator.models.latents.config import SamplerSettings
    from generator.models.learning import TrainingPlan, TrainResult
    from generator.models.screening.config import JudgeSettings
    from generator.sources import Source


@dataclass(frozen=True)
class TrainingRequest:
    """What was asked for. ``options``: of the settings; ``model_options``: of the model; both without what is left to
    the defaults. ``sampler``: ``None`` for the recommended one. ``budget``: seconds."""

    out: Path
    model: str
    model_options: dict[str, Any]
    options: dict[str, Any]
    sampler: SamplerSettings | None
    judge: JudgeOptions
    budget: float | None
    keep_thumbnails: bool
    pictures: bool
    as_json: bool


def train_from_scratch(request: TrainingRequest, images: Source, replicas: Replicas) -> None:
    """Train an autoencoder and write the bundle; in all processes but the first, take part and return."""
    from generator.models.learning import help_to_train, plan_training, recommended_model, recommended_sampler

    settings = _settings_from_scratch(images, request.model, request.options)
    config = recommended_model(images, request.model, **request.model_options)
    sampler = request.sampler or recommended_sampler(images, request.model)
    judge = request.judge.choose(images, settings, quiet=request.as_json) if replicas.is_first else None
    if request.budget is not None:
        planning = partial(plan_training, family=request.model, settings=settings, options=request.model_options)
        plan = _plan(partial(planning, images, request.budget, judge=judge), request, replicas)
        config, settings, sampler, judge = plan.config, plan.settings, plan.sampler, plan.judge
    if not replicas.is_first:
        help_to_train(images, config, settings, replicas)
        return
    picture = _picture(request, images)
    result = _train(request, images, config, settings, sampler, judge, replicas, picture)
    best = next(record for record in reversed(result.history) if record.best)
    facts = {"best_epoch": best.epoch, "holdout_loss": round(best.holdout_loss, 5)}
    _show(request, images, result, {}, facts, picture)


def train_pretrained(request: TrainingRequest, images: Source, replicas: Replicas) -> None:
    """Encode with the pretrained autoencoder, train its decoder further if asked, and write the bundle; in all
    processes but the first, take part in that training and return."""
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

    options, tuned = request.options, bool(request.options.get("tuning_steps"))
    if tuned and request.budget is not None:
        raise SpecError("budget", "a budget or --tuning-steps, not both", "--budget and --tuning-steps")
    network = pretrained_network(images.size, images.channels)
    recommended = pretrained_settings(images, tuned=tuned).model_dump()
    settings, finetune = parse_settings(recommended | options), "epochs" in options
    split_settings = parse_settings(recommended_settings(images, "spatial").model_dump() | options)
    judge = request.judge.choose(images, split_settings, quiet=request.as_json) if replicas.is_first else None
    if request.budget is not None:
        planning = partial(plan_pretrained, images, request.budget, network.config, settings=settings, judge=judge)
        plan = _plan(planning, request, replicas)
        settings, judge, finetune = plan.settings, plan.judge, plan.trains
    if not finetune:
        replicas.part()  # there is nothing to share
    if not replicas.is_first:
        if finetune:
            help_to_train(images, network.config, settings, replicas, initial=initial_weights(network))
        return
    picture = _picture(request, images)
    result = encode_images(
        *(network, images, request.sampler or pretrained_sampler(images), settings, judge, request.out),
        finetune=finetune,
        quiet=request.as_json,
        keep_thumbnails=request.keep_thumbnails,
        replicas=replicas,
        on_networks=picture.after_epoch if picture else None,
    )
    facts = {"reconstruction_error": round(result.reconstruction_error, 6)}
    _show(request, images, result, {"model": "pretrained autoencoder"}, facts, picture)


def _settings_from_scratch(images: Source, model: str, options: dict[str, Any]) -> TrainSettings:
    """The settings recommended for the images, under those that were asked for."""
    from generator.models.autoencoders.settings import parse_settings
    from generator.models.learning import recommended_settings

    recommended = recommended_settings(images, model, options.get("epochs")).model_dump()
    if options.get("feature_loss") == 0.0:
        recommended.pop("tuning_steps", None)  # it needs the classifier of the feature loss
    return parse_settings(recommended | options)


def _plan(make: Callable[..., TrainingPlan], request: TrainingRequest, replicas: Replicas) -> TrainingPlan:
    """The plan that the first process makes for all, and says."""
    with progress_lines("planning", None, quiet=request.as_json or not replicas.is_first):
        plan = replicas.from_first(lambda: make(processes=replicas.count))
    if replicas.is_first:
        click.echo(f"plan for {request.budget:.0f} s: {plan.describe()}", err=True)
    return plan


def _train(
    request: TrainingRequest,
    images: Source,
    config: AutoencoderConfig,
    settings: TrainSettings,
    sampler: SamplerSettings,
    judge: JudgeSettings | None,
    replicas: Replicas,
    picture: TrainingPicture | None,
) -> TrainResult:
    from generator.models.learning import train_bundle

    steps = settings.epochs * max(1, int(len(images) * (1 - settings.holdout)) // settings.batch)
    with progress_bar("training", steps, quiet=request.as_json, unit="steps") as bar:
        return train_bundle(
            images,
            config,
            settings,
            request.out,
            sampler=sampler,
            judge=judge,
            replicas=replicas,
            callbacks=training_progress(
                *(bar, len(images), sampler, settings),
                on_networks=picture.after_epoch if picture else None,
                quiet=request.as_json,
            ),
            keep_thumbnails=request.keep_thumbnails,
        )


def _picture(request: TrainingRequest, images: Source) -> TrainingPicture | None:
    return TrainingPicture(request.out, images, quiet=request.as_json) if request.pictures else None


def _show(
    request: TrainingRequest,
    images: Source,
    result: TrainResult,
    model: dict[str, Any],
    quality: dict[str, Any],
    picture: TrainingPicture | None,
) -> None:
    """Say what there is to notice, and the facts of the bundle."""
    for notice in result.fit.notices:
        click.echo(f"notice: {notice}", err=True)
    facts = {
        "bundle": str(request.out),
        "digest": result.digest,
        **model,
        "images": len(images),
        "trained_on": result.trained_on,
        "held_out": result.held_out,
        "classes": len(images.class_names),
        "skipped": len(images.skipped),
        "epochs": len(result.history),
        **quality,
        **(picture.of_bundle() if picture else {}),
    }
    show(facts, as_json=request.as_json, title="bundle written")
