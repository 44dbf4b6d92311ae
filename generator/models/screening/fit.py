"""From real images, a decoder and a latent distribution to the guards of a bundle."""

from __future__ import annotations

import numpy as np
from torch import nn

from generator.models.autoencoders.inference import decode
from generator.models.features.classifier import Labelled
from generator.models.latents import LatentDistribution
from generator.models.screening.config import LABEL_FLOOR, NOVELTY_FLOOR, JudgeSettings, Passing
from generator.models.screening.copy_index import Sketch, draw_sketch
from generator.models.screening.data import Guards
from generator.models.screening.label_judge import Judge, train_judge
from generator.spec.seeding import noise

_TRIED, _ALL_TRIED, _AT_ONCE = 200, 20_000, 1000  # samples of each class, of many classes together, in memory


def judge_and_sketch(
    train: Labelled | np.ndarray,
    holdout_HHWC: np.ndarray,
    settings: JudgeSettings | None,
    *,
    classes: int,
    seed: int,
    device: str,
) -> tuple[Judge | None, Sketch | None]:
    """Of uint8 training images, with labels or without; no judge without settings or with fewer than two classes.

    Raises what ``train_judge`` raises.
    """
    judge = None
    if settings is not None and isinstance(train, Labelled) and classes >= 2:
        judge = train_judge(train, settings, classes=classes, seed=seed, device=device)
    images_NHWC = train.images_NHWC if isinstance(train, Labelled) else train
    return judge, draw_sketch(images_NHWC, holdout_HHWC, seed=seed)


def guards_of(
    decoder: nn.Module,
    latents: LatentDistribution,
    settings: JudgeSettings | None,
    judge: Judge | None,
    sketch: Sketch | None,
) -> Guards:
    """What the bundle of ``decoder`` and ``latents`` holds, with how much of its own samples passes."""
    passing = _passing(decoder, latents, judge, sketch)
    if judge is None:
        return Guards(sketch=sketch, passing=passing)
    weights = {name: weight.cpu().numpy() for name, weight in judge.state_dict().items()}
    return Guards(settings, weights, sketch, passing)


def _passing(decoder: nn.Module, latents: LatentDistribution, judge: Judge | None, sketch: Sketch | None) -> Passing:
    classes = max(1, latents.classes)
    labels_N = np.arange(classes * max(1, min(_TRIED, _ALL_TRIED // classes))) % classes
    drawn = noise(0, np.arange(len(labels_N)), np.zeros_like(labels_N), latents.dims)
    z_ND = latents.sample(drawn, labels_N).z_BD
    sure_N, new_N = np.zeros(len(labels_N), dtype=bool), np.zeros(len(labels_N), dtype=bool)
    for begin in range(0, len(labels_N), _AT_ONCE):
        rows = slice(begin, begin + _AT_ONCE)
        images_BHWC, labels_B = decode(decoder, z_ND[rows]), labels_N[rows]
        if judge is not None:
            sure_N[rows] = judge.probabilities(images_BHWC)[np.arange(len(labels_B)), labels_B] >= LABEL_FLOOR
        if sketch is not None:
            new_N[rows] = ~sketch.copies(images_BHWC, NOVELTY_FLOOR)
    return Passing(
        label=() if judge is None else tuple(float(sure_N[labels_N == label].mean()) for label in range(classes)),
        novelty=None if sketch is None else float(new_N.mean()),
    )
