"""Trains the label judge, fits the copy index, and measures their pass rates."""

from __future__ import annotations

import numpy as np
from torch import nn

from generator.models.autoencoders.config import AutoencoderConfig, limit_batch, limit_samples, takes_labels
from generator.models.autoencoders.inference import decode
from generator.models.batched_rows import images_at_once
from generator.models.features.classifier import LabelledImages
from generator.models.freed_memory import give_back_freed_memory
from generator.models.latents import LatentDistribution
from generator.models.latents.transport_map import to_codes
from generator.models.screening.calibration import calibrate
from generator.models.screening.config import LABEL_FLOOR, NOVELTY_FLOOR, JudgeSettings, PassRates
from generator.models.screening.copy_index import CopyIndex, fit_copy_index
from generator.models.screening.data import ScreeningData
from generator.models.screening.label_judge import LabelJudge, train_judge
from generator.spec.seeding import noise

_SAMPLES_PER_CLASS, _MAX_SAMPLES = 200, 20_000  # for the pass rates; the maximum is for all classes together
_BATCH, _DECODED_AT_ONCE = 1000, 512  # samples in memory


def train_screening(
    train: LabelledImages | np.ndarray,
    holdout: LabelledImages | np.ndarray,
    settings: JudgeSettings | None,
    *,
    classes: int,
    seed: int,
    device: str,
) -> tuple[LabelJudge | None, CopyIndex | None]:
    """The judge and the copy index of uint8 training images; no judge without settings, labels, or two classes.

    ``holdout``: of the same kind as ``train``; they calibrate the judge. Raises what ``train_judge`` raises.
    """
    judge = None
    if settings is not None and isinstance(train, LabelledImages) and classes >= 2:
        judge = train_judge(train, settings, classes=classes, seed=seed, device=device)
        if settings.calibrated and isinstance(holdout, LabelledImages):
            calibrate(judge, holdout)
            give_back_freed_memory()
    images_NHWC, holdout_HHWC = (
        each.images_NHWC if isinstance(each, LabelledImages) else each for each in (train, holdout)
    )
    return judge, fit_copy_index(images_NHWC, holdout_HHWC, seed=seed)


def make_screening(
    decoder: nn.Module,
    latents: LatentDistribution,
    settings: JudgeSettings | None,
    judge: LabelJudge | None,
    copy_index: CopyIndex | None,
    *,
    config: AutoencoderConfig,
) -> ScreeningData:
    """The screening data of a bundle, with the pass rates of samples from ``latents`` decoded by ``decoder``, which is
    the one of ``config``."""
    pass_rates = _pass_rates(decoder, latents, judge, copy_index, config)
    if judge is None:
        return ScreeningData(copy_index=copy_index, pass_rates=pass_rates)
    weights = {name: weight.cpu().numpy() for name, weight in judge.state_dict().items()}
    return ScreeningData(settings, weights, copy_index, pass_rates)


def _pass_rates(
    decoder: nn.Module,
    latents: LatentDistribution,
    judge: LabelJudge | None,
    copy_index: CopyIndex | None,
    config: AutoencoderConfig,
) -> PassRates:
    if judge is None and copy_index is None:
        return PassRates()
    classes, labelled = max(1, latents.classes), takes_labels(config)
    count = limit_samples(config, min(_SAMPLES_PER_CLASS * classes, _MAX_SAMPLES))
    labels_N = np.arange(classes * max(1, count // classes)) % classes
    sample_noise = noise(0, np.arange(len(labels_N)), np.zeros_like(labels_N), latents.dims)
    z_ND = to_codes(latents, latents.sample(sample_noise, labels_N).z_BD, labels_N)
    batch = images_at_once(config.image_size, limit_batch(config, _DECODED_AT_ONCE))
    label_passes_N, novelty_passes_N = np.zeros(len(labels_N), dtype=bool), np.zeros(len(labels_N), dtype=bool)
    for begin in range(0, len(labels_N), _BATCH):
        rows = slice(begin, begin + _BATCH)
        labels_B = labels_N[rows]
        images_BHWC = decode(decoder, z_ND[rows], batch, labels_B if labelled else None)
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
