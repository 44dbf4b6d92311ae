"""Unlabelled images in, those that a bundle's judge is sure of out, with labels: label."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workers.cli.output import json_option, show

if TYPE_CHECKING:
    from generator.models.bundle import Bundle
    from generator.models.features.classifier import LabelledImages
    from generator.models.screening.label_judge import LabelJudge


@click.command("label")
@click.argument("bundle")
@click.argument("source")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .npz file to write; must be new.")
@click.option("--floor", type=click.FloatRange(0.0, 1.0), default=0.9, show_default=True, help="How sure is sure.")
@json_option
def label_command(bundle: str, source: str, out: Path, floor: float, as_json: bool) -> None:
    """Label the images of SOURCE that the judge of BUNDLE is sure of, and write them as a source to train on.

    With few labels and many images: train on the few, label the many, train on what comes out. Labels that SOURCE has
    are not looked at. Beside images and labels the file has `train_probabilities`, what the judge makes of every class.
    """
    from generator.errors import SettingsError, SourceError
    from generator.models.bundle import load_bundle
    from generator.models.screening.self_training import pseudo_label
    from generator.sources import load_source
    from generator.store import open_store
    from workers.settings import load_settings

    if out.exists() or out.suffix != ".npz":
        raise SettingsError("out", "a path that ends in .npz, where nothing is yet", str(out))
    held = load_bundle(open_store(bundle, load_settings().s3))
    judge, image = _bundle_judge(held), held.info.image
    images = load_source(source, size=image.height, channels=image.channels)
    found = pseudo_label(judge, images.images_NHWC, floor=floor)
    missing = [name for label, name in enumerate(held.info.classes) if not (found.labels_N == label).any()]
    if missing:
        wanted = f"an image of every class that the judge is sure of by {floor}"
        raise SourceError("source", wanted, f"none of {', '.join(missing)}", "a lower --floor")
    _write_labels(out, found, held.info.classes)
    facts: dict[str, Any] = {
        "file": str(out),
        "images": len(images),
        "labelled": len(found),
        "classes": {name: int((found.labels_N == label).sum()) for label, name in enumerate(held.info.classes)},
    }
    show(facts, as_json=as_json, title="labels written")


def _bundle_judge(held: Bundle) -> LabelJudge:
    from generator.errors import BundleError
    from generator.models.screening.label_judge import load_judge

    info, weights = held.info, held.screening.judge_weights
    if info.judge is None or weights is None:
        raise BundleError("judge", "a bundle with a judge", "one without", "train with --judges 1 or more")
    image = info.image
    return load_judge(info.judge, weights, size=image.height, channels=image.channels, classes=len(info.classes))


def _write_labels(out: Path, found: LabelledImages, classes: tuple[str, ...]) -> None:
    import numpy as np

    np.savez_compressed(
        out,
        train_images=found.images_NHWC,
        train_labels=found.labels_N,
        train_probabilities=np.asarray(found.probability_NC),
        class_names=np.array(classes),
    )
