"""The command label: writes the images of a source that a bundle's judge labels with high probability."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workers.cli.output import json_option, show
from workers.cli.source_options import later_source_options, show_source_notices, take_source_arguments

if TYPE_CHECKING:
    from generator.models.bundle import Bundle
    from generator.models.features.classifier import LabelledImages
    from generator.models.screening.label_judge import LabelJudge


@click.command("label")
@click.argument("bundle")
@click.argument("source")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .npz file to write; must not exist.")
@click.option(
    "--floor",
    type=click.FloatRange(0.0, 1.0),
    default=0.9,
    show_default=True,
    help="Minimum probability of the predicted class.",
)
@later_source_options
@json_option
def label_command(bundle: str, source: str, out: Path, floor: float, as_json: bool, **given: Any) -> None:
    """Label images of SOURCE with the judge of BUNDLE (its classifier), and write them as a source to train on.

    Only images whose predicted class has a probability of at least --floor are written. Existing labels of SOURCE are
    ignored. With few labels and many images: train on the labelled ones, label the others, train again on the result.
    The file also has `train_probabilities`, the judge's probability of every class.
    """
    from generator.errors import SettingsError, SourceError
    from generator.models.bundle import load_bundle
    from generator.models.bundle.real_images import load_images
    from generator.models.screening.self_training import pseudo_label
    from generator.store import open_store
    from workers.settings import load_settings

    if out.exists() or out.suffix != ".npz":
        raise SettingsError("out", "a path that ends in .npz and does not exist", str(out))
    loaded = load_bundle(open_store(bundle, load_settings().s3))
    judge = _bundle_judge(loaded)
    arguments = take_source_arguments(given)
    images = load_images(source, loaded.info, **arguments.options())
    show_source_notices(images, quiet=as_json)
    labelled = pseudo_label(judge, images.images_NHWC, floor=floor)
    missing = [name for label, name in enumerate(loaded.info.classes) if not (labelled.labels_N == label).any()]
    if missing:
        expected = f"an image of every class with a probability of at least {floor}"
        raise SourceError("source", expected, f"none of {', '.join(missing)}", "a lower --floor")
    _write_labels(out, labelled, loaded.info.classes)
    facts: dict[str, Any] = {
        "file": str(out),
        "images": len(images),
        "labelled": len(labelled),
        "classes": {name: int((labelled.labels_N == label).sum()) for label, name in enumerate(loaded.info.classes)},
    }
    show(facts, as_json=as_json, title="labels written")


def _bundle_judge(loaded: Bundle) -> LabelJudge:
    from generator.errors import BundleError
    from generator.models.screening.label_judge import load_judge

    info, weights = loaded.info, loaded.screening.judge_weights
    if info.judge is None or weights is None:
        raise BundleError("judge", "a bundle with a judge", "one without", "train with --judges 1 or more")
    image = info.image
    return load_judge(info.judge, weights, size=image.size, channels=image.channels, classes=len(info.classes))


def _write_labels(out: Path, labelled: LabelledImages, classes: tuple[str, ...]) -> None:
    import numpy as np

    np.savez_compressed(
        out,
        train_images=labelled.images_NHWC,
        train_labels=labelled.labels_N,
        train_probabilities=np.asarray(labelled.probability_NC),
        class_names=np.array(classes),
    )
