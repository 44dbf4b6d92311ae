"""What is measured: a committed dataset, and the real images behind it, split as the training of its bundle did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generator.datasets.torch_dataset import Dataset, open_dataset
from generator.errors import MeasureError, SourceError
from generator.models.bundle.format import BundleInfo
from generator.models.features.classifier import LabelledImages
from generator.sources import Source, split
from generator.spec.canonical import FrozenModel
from generator.spec.recipe import Digest
from generator.store import S3Settings


class SubjectFacts(FrozenModel):
    """Which dataset, bundle and source, and how many images of each kind."""

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
        """uint8 pixels_ND."""
        return self.images_NHWC.reshape(len(self.images_NHWC), -1)

    def labelled(self) -> LabelledImages:
        """Raises ``MeasureError`` without labels."""
        if self.labels_N is None:
            raise MeasureError("labels", "labelled images", "images without labels", "leave usefulness out")
        return LabelledImages(self.images_NHWC, self.labels_N)


@dataclass(frozen=True, eq=False)
class Subject:
    """Synthetic images, and the real ones: trained on, held out, and (where given) those for testing only."""

    facts: SubjectFacts
    synthetic: Images
    train: Images
    holdout: Images
    test: Images | None

    @property
    def unseen(self) -> Images:
        """Real images that nothing was trained on: the test images, or else the holdout."""
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
    sampled: Images | None = None,
    s3: S3Settings | None = None,
) -> Subject:
    """Read the committed build at ``url`` into memory, beside the ``source`` that its ``bundle`` was trained on.

    With ``sampled``, some of its images with labels in its own numbering, those stand for the build, which is not read.

    Raises ``DatasetError`` for anything but a committed build, ``SourceError`` where the source is another one than
    the dataset was made from, ``MeasureError`` where sizes or classes differ, ``IntegrityError`` for damage.
    """
    dataset = open_dataset(url, s3=s3)
    stated = dataset.manifest.provenance.source_fingerprint
    if not source.fingerprint == stated == bundle.source.fingerprint:
        hint = "give the same images, at the same size and with the same options as for training"
        wanted = f"the images behind the dataset ({stated})"
        got = source.fingerprint if source.fingerprint != stated else f"a bundle of {bundle.source.fingerprint}"
        raise SourceError("source", wanted, got, hint)
    settings = bundle.training_facts.settings
    parts = split(len(source), source.labels_N, holdout=settings.holdout, seed=settings.seed)
    synthetic = _with_source_labels(dataset, source, _read_images(dataset) if sampled is None else sampled)
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
    images_NHWC = np.empty((manifest.samples, *shape), dtype=np.uint8)
    labels_N = np.empty(manifest.samples, dtype=np.int64)
    for row, (image_HWC, label, _) in enumerate(dataset):
        images_NHWC[row], labels_N[row] = image_HWC, label
    return Images(images_NHWC, labels_N)


def _with_source_labels(dataset: Dataset, source: Source, synthetic: Images) -> Images:
    """The images with the label numbers of ``source``, or without labels."""
    shape = synthetic.images_NHWC.shape[1:]
    if shape != source.images_NHWC.shape[1:]:
        raise MeasureError("synthetic", f"images of the source's shape {source.images_NHWC.shape[1:]}", shape)
    if not dataset.classes or synthetic.labels_N is None:
        return Images(synthetic.images_NHWC)
    return Images(synthetic.images_NHWC, _remap_labels("synthetic", synthetic.labels_N, dataset.classes, source))


def _take_rows(source: Source, rows_N: np.ndarray) -> Images:
    return Images(source.images_NHWC[rows_N], None if source.labels_N is None else source.labels_N[rows_N])


def _test_images(test: Source, source: Source) -> Images:
    if test.images_NHWC.shape[1:] != source.images_NHWC.shape[1:]:
        shape = test.images_NHWC.shape[1:]
        raise MeasureError("test", f"images of the source's shape {source.images_NHWC.shape[1:]}", shape)
    if test.labels_N is None or source.labels_N is None:
        return Images(test.images_NHWC)
    return Images(test.images_NHWC, _remap_labels("test", test.labels_N, test.class_names, source))


def _remap_labels(field: str, labels_N: np.ndarray, names: tuple[str, ...], source: Source) -> np.ndarray:
    """``labels_N`` in the order of the source's class names."""
    strangers = [name for name in names if name not in source.class_names]
    if strangers:
        known = ", ".join(source.class_names[:10]) or "none"
        raise MeasureError(f"{field}.classes", f"classes of the source ({known})", repr(strangers[0]))
    order = np.array([source.class_names.index(name) for name in names], dtype=np.int64)
    numbers_N: np.ndarray = order[labels_N]
    return numbers_N
