"""Trains the label judge, fits the copy index, and measures their pass rates."""

from __future__ import annotations

import numpy as np
from torch import nn

from generator.models.autoencoders.inference import decode
from generator.models.features.classifier import LabelledImages
from generator.models.latents import LatentDistribution
from generator.models.latents.transport_map import to_codes
from generator.models.screening.config import LABEL_FLOOR, NOVELTY_FLOOR, JudgeSettings, PassRates
from generator.models.screening.copy_index import CopyIndex, fit_copy_index
from generator.models.screening.data import ScreeningData
from generator.models.screening.label_judge import LabelJudge, train_judge
from generator.spec.seeding import noise

_SAMPLES_PER_CLASS, _MAX_SAMPLES = 200, 20_000  # for the pass rates; the maximum is for all classes together
_BATCH = 1000  # samples in memory


def train_screening(
    train: LabelledImages | np.ndarray,
    holdout_HHWC: np.ndarray,
    settings: JudgeSettings | None,
    *,
    classes: int,
    seed: int,
    device: str,
) -> tuple[LabelJudge | None, CopyIndex | None]:
    """The judge and the copy index of uint8 training images; no judge without settings, labels, or two classes.

    Raises what ``train_judge`` raises.
    """
    judge = None
    if settings is not None and isinstance(train, LabelledImages) and classes >= 2:
        judge = train_judge(train, settings, classes=classes, seed=seed, device=device)
    images_NHWC = train.images_NHWC if isinstance(train, LabelledImages) else train
    return judge, fit_copy_index(images_NHWC, holdout_HHWC, seed=seed)


def make_screening(
    decoder: nn.Module,
    latents: LatentDistribution,
    settings: JudgeSettings | None,
    judge: LabelJudge | None,
    copy_index: CopyIndex | None,
) -> ScreeningData:
    """The screening data of a bundle, with the pass rates of samples from ``latents`` decoded by ``decoder``."""
    pass_rates = _pass_rates(decoder, latents, judge, copy_index)
    if judge is None:
        return ScreeningData(copy_index=copy_index, pass_rates=pass_rates)
    weights = {name: weight.cpu().numpy() for name, weight in judge.state_dict().items()}
    return ScreeningData(settings, weights, copy_index, pass_rates)


def _pass_rates(
    decoder: nn.Module, latents: LatentDistribution, judge: LabelJudge | None, copy_index: CopyIndex | None
) -> PassRates:
    classes = max(1, latents.classes)
    labels_N = np.arange(classes * max(1, min(_SAMPLES_PER_CLASS, _MAX_SAMPLES // classes))) % classes
    sample_noise = noise(0, np.arange(len(labels_N)), np.zeros_like(labels_N), latents.dims)
    z_ND = to_codes(latents, latents.sample(sample_noise, labels_N).z_BD, labels_N)
    label_passes_N, novelty_passes_N = np.zeros(len(labels_N), dtype=bool), np.zeros(len(labels_N), dtype=bool)
    for begin in range(0, len(labels_N), _BATCH):
        rows = slice(begin, begin + _BATCH)
        images_BHWC, labels_B = decode(decoder, z_ND[rows]), labels_N[rows]
        if judge is not None:
            label_passes_N[rows] = judge.probabilities(images_BHWC)[np.arange(len(labels_B)), labels_B] >= LABEL_FLOOR
        if copy_index is not None:
            novelty_passes_N[rows] = ~copy_index.is_copy(images_BHWC, NOVELTY_FLOOR)
    return PassRates(
        label=()
        if judge is None
        else tuple(float(label_passes_N[labels_N == label].mean()) for label in range(classes)),
        novelty=None if copy_index is None else float(novelty_passes_N.mean()),
    )
