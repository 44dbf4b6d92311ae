"""The subject of a measurement: a committed dataset and the source of its bundle, split as for training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generator.datasets.torch_dataset import Dataset, open_dataset
from generator.errors import MeasureError, SourceError
from generator.models.bundle.format import BundleInfo
from generator.models.features.classifier import LabelledImages
from generator.sources import Source, split
from generator.sources.pixels.storage import allocate_images, flat_pixels, image_rows
from generator.spec.canonical import FrozenModel
from generator.spec.recipe import Digest
from generator.store import S3Settings


class SubjectFacts(FrozenModel):
    """The dataset, bundle and source of a measurement, and the number of images in each set."""

    dataset: str
    build: str
    bundle: Digest
    source: str
    source_fingerprint: Digest
    test: str | None
    classes: tuple[str, ...]
    synthetic_images: int
    train_images: int
    holdout_images: int
    test_images: int


@dataclass(frozen=True, eq=False)
class Images:
    """``images_NHWC`` uint8; ``labels_N`` int64 in the numbering of the source, or ``None``."""

    images_NHWC: np.ndarray
    labels_N: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images_NHWC)

    def pixels(self) -> np.ndarray:
        """pixels_ND, uint8."""
        return flat_pixels(self.images_NHWC)

    def labelled(self) -> LabelledImages:
        """The images with labels. Raises ``MeasureError`` if there are none."""
        if self.labels_N is None:
            raise MeasureError("labels", "labelled images", "images without labels", "omit usefulness")
        return LabelledImages(self.images_NHWC, self.labels_N)


@dataclass(frozen=True, eq=False)
class Subject:
    """Synthetic images, and real ones: for training, held out, and optionally for testing only."""

    facts: SubjectFacts
    synthetic: Images
    train: Images
    holdout: Images
    test: Images | None

    @property
    def unseen(self) -> Images:
        """Real images that were not trained on: the test images or, without them, the holdout."""
        return self.holdout if self.test is None else self.test

    @property
    def classes(self) -> int:
        return len(self.facts.classes)


def load_subject(
    url: str,
    source: Source,
    bundle: BundleInfo,
    *,
    test: Source | None = None,
    images: Images | None = None,
    s3: S3Settings | None = None,
) -> Subject:
    """Read the committed build at ``url`` into memory, with the ``source`` that its ``bundle`` was trained on.

    ``images``: a subset of the build's images, with the build's label numbers; then the shards are not read.

    Raises ``DatasetError`` if there is no committed build, ``SourceError`` if the dataset was not made from this
    source, ``MeasureError`` if sizes or classes differ, ``IntegrityError`` for damage.
    """
    dataset = open_dataset(url, s3=s3)
    stated = dataset.manifest.provenance.source_fingerprint
    if not source.fingerprint == stated == bundle.source.fingerprint:
        hint = "give the same images, with the same size and options as for training"
        expected = f"the images behind the dataset ({stated})"
        got = source.fingerprint if source.fingerprint != stated else f"a bundle of {bundle.source.fingerprint}"
        raise SourceError("source", expected, got, hint)
    settings = bundle.training_facts.settings
    parts = split(len(source), source.labels_N, holdout=settings.holdout, seed=settings.seed)
    synthetic = _with_source_labels(dataset, source, _read_images(dataset) if images is None else images)
    return Subject(
        facts=SubjectFacts(
            dataset=dataset.url,
            build=dataset.manifest.build_id,
            bundle=dataset.manifest.provenance.bundle,
            source=source.name,
            source_fingerprint=source.fingerprint,
            test=None if test is None else test.name,
            classes=source.class_names,
            synthetic_images=len(synthetic),
            train_images=len(parts.train_N),
            holdout_images=len(parts.holdout_N),
            test_images=0 if test is None else len(test),
        ),
        synthetic=synthetic,
        train=_take_rows(source, parts.train_N),
        holdout=_take_rows(source, parts.holdout_N),
        test=None if test is None else _test_images(test, source),
    )


def _read_images(dataset: Dataset) -> Images:
    manifest = dataset.manifest
    shape = (manifest.image.height, manifest.image.width, manifest.image.channels)
    images_NHWC = allocate_images((manifest.samples, *shape))
    labels_N = np.empty(manifest.samples, dtype=np.int64)
    for row, (image_HWC, label, _) in enumerate(dataset):
        images_NHWC[row], labels_N[row] = image_HWC, label
    return Images(images_NHWC, labels_N)


def _with_source_labels(dataset: Dataset, source: Source, synthetic: Images) -> Images:
    """The images with the label numbers of ``source``; without labels if the dataset has none."""
    shape = synthetic.images_NHWC.shape[1:]
    if shape != source.images_NHWC.shape[1:]:
        raise MeasureError("synthetic", f"images of the source's shape {source.images_NHWC.shape[1:]}", shape)
    if not dataset.classes or synthetic.labels_N is None:
        return Images(synthetic.images_NHWC)
    return Images(synthetic.images_NHWC, _remap_labels("synthetic", synthetic.labels_N, dataset.classes, source))


def _take_rows(source: Source, rows_N: np.ndarray) -> Images:
    return Images(image_rows(source.images_NHWC, rows_N), None if source.labels_N is None else source.labels_N[rows_N])


def _test_images(test: Source, source: Source) -> Images:
    if test.images_NHWC.shape[1:] != source.images_NHWC.shape[1:]:
        shape = test.images_NHWC.shape[1:]
        raise MeasureError("test", f"images of the source's shape {source.images_NHWC.shape[1:]}", shape)
    if test.labels_N is None or source.labels_N is None:
        return Images(test.images_NHWC)
    return Images(test.images_NHWC, _remap_labels("test", test.labels_N, test.class_names, source))


def _remap_labels(field: str, labels_N: np.ndarray, names: tuple[str, ...], source: Source) -> np.ndarray:
    """Change label numbers from ``names`` to the class names of the source."""
    unknown = [name for name in names if name not in source.class_names]
    if unknown:
        known = ", ".join(source.class_names[:10]) or "none"
        raise MeasureError(f"{field}.classes", f"classes of the source ({known})", repr(unknown[0]))
    order = np.array([source.class_names.index(name) for name in names], dtype=np.int64)
    numbers_N: np.ndarray = order[labels_N]
    return numbers_N
