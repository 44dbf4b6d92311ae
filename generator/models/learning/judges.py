"""The recommended judge for a source.

Photographs are the sources whose judges are doubtful: there a wider network is trained for longer, on mirrored images
too where these keep their class, and calibrated. Figures: docs/quality_log.md.
"""

from __future__ import annotations

from generator.models.autoencoders.settings import TrainSettings
from generator.models.features.classifier import LabelledImages
from generator.models.learning.defaults import is_photographic
from generator.models.screening.config import JudgeSettings, default_judge
from generator.models.screening.mirroring import is_mirroring_harmless
from generator.sources import Source, split
from generator.sources.pixels.storage import image_rows
from generator.spec.image_size import AnySize

_WIDTH, _STEPS = 32, 1400


def recommended_judge(source: Source, settings: TrainSettings, *, mirrored: bool | None = None) -> JudgeSettings:
    """As ``default_judge``; for many photographs ``photograph_judge``.

    ``settings`` say which images are held out, the seed, and the device. ``mirrored``: whether the judge is; ``None``
    finds out with many photographs, by a short training, and does not mirror others.
    """
    if not is_photographic(source):
        return default_judge(source.size).model_copy(update={"mirrored": bool(mirrored)})
    if mirrored is None:
        mirrored = _may_be_mirrored(source, settings)
    return photograph_judge(source.size).model_copy(update={"mirrored": mirrored})


def photograph_judge(size: AnySize) -> JudgeSettings:
    """The recommended judge for photographs of ``size``, without mirroring."""
    usual = default_judge(size)
    budget = usual.budget.model_copy(update={"steps": _STEPS})
    return usual.model_copy(update={"width": _WIDTH, "budget": budget, "calibrated": True})


def _may_be_mirrored(source: Source, settings: TrainSettings) -> bool:
    if source.labels_N is None or len(source.class_names) < 2:
        return False
    parts = split(len(source), source.labels_N, holdout=settings.holdout, seed=settings.seed)
    train, holdout = (
        LabelledImages(image_rows(source.images_NHWC, rows_N), source.labels_N[rows_N])
        for rows_N in (parts.train_N, parts.holdout_N)
    )
    classes = len(source.class_names)
    return is_mirroring_harmless(train, holdout, classes=classes, seed=settings.seed, device=settings.device)
