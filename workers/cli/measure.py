"""The command measure: measures the quality of a dataset against real images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from workers.cli.dataset_bundle import dataset_bundle
from workers.cli.output import json_option
from workers.cli.progress import progress_lines
from workers.cli.source_options import (
    SourceArguments,
    later_source_options,
    show_source_notices,
    take_source_arguments,
)

if TYPE_CHECKING:
    from generator.curation.quality.novelty import Novelty
    from generator.curation.quality.report import MeasureSettings, QualityReport
    from generator.curation.quality.usefulness import ArmResult
    from generator.models.bundle import BundleInfo
    from generator.sources import Source


@click.command("measure")
@click.argument("dataset")
@click.argument("source")
@click.option("--test", help="Real images not used in training: `test` for that split of SOURCE, or another source.")
@click.option(
    "--measures", help="Comma-separated: fidelity, coverage, novelty, duplicates, usefulness.  [default: all]"
)
@click.option("--seeds", type=int, help="Repetitions, each with its own choice of images and classifier.  [default: 3]")
@click.option("--seed", type=int, help="Seed of the choice of images.  [default: 0]")
@click.option("--limit", type=int, help="Maximum images of each set.  [default: 10000; for novelty all]")
@click.option("--steps", type=int, help="Training steps of each classifier.  [default: 1400]")
@click.option("--bundle", help="Bundle directory or URL.  [default: the dataset's bundle, from the store root]")
@later_source_options
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda, or cuda:N.")
@json_option
def measure_command(
    dataset: str,
    source: str,
    test: str | None,
    measures: str | None,
    bundle: str | None,
    device: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Measure the quality of DATASET against SOURCE, the real images of its training.

    Measures fidelity, coverage, novelty, duplicates, and usefulness (the accuracy of classifiers trained on it). Writes
    reports/quality.json of the build, which replaces an earlier report.
    """
    from generator.curation.quality.report import QUALITY_REPORT_KEY, measure
    from generator.curation.quality.subject import load_subject
    from generator.datasets.builds import resolve_build
    from generator.models.autoencoders.devices import resolve_device
    from generator.models.bundle import read_info
    from workers.settings import load_settings

    resolve_device(device)
    arguments = take_source_arguments(given)
    settings = load_settings()
    store, manifest = resolve_build(dataset, settings.s3)
    measure_settings = _measure_settings(measures, labelled=bool(manifest.classes), given=given)
    digest = manifest.provenance.bundle
    bundle_location = dataset_bundle(bundle, digest, settings)
    _, info = read_info(bundle_location, digest)
    store.check_writable()
    with progress_lines("measuring", None, quiet=as_json) as lines:

        def say(stage: str) -> None:
            lines.stage(stage)
            if not as_json:
                click.echo(stage, err=True)

        say(f"reading {source}")
        real, unseen = _load_sources(source, test, info, arguments, quiet=as_json)
        say(f"reading {manifest.samples} images of {store.url}")
        subject = load_subject(store.url, real, info, test=unseen, s3=settings.s3)
        encoder = None if info.classes else _bundle_encoder(bundle_location)
        report = measure(subject, measure_settings, encoder=encoder, device=device, on_stage=say)
    store.put(QUALITY_REPORT_KEY, report.model_dump_json(indent=2).encode() + b"\n")
    if as_json:
        click.echo(report.model_dump_json(indent=2))
        return
    for line in _report_lines(report):
        click.echo(line)
    click.echo(f"written to {store.url}/{QUALITY_REPORT_KEY}")


def _measure_settings(measures: str | None, *, labelled: bool, given: dict[str, Any]) -> MeasureSettings:
    from generator.curation.quality.report import MEASURES, MeasureSettings
    from generator.errors import MeasureError
    from generator.spec.canonical import validate

    fields = {name: value for name, value in given.items() if value is not None}
    if "limit" in fields:
        fields["novelty_limit"] = max(fields["limit"], 100)
    if (steps := fields.pop("steps", None)) is not None:
        fields["budget"] = {"steps": steps}
    names = [name.strip() for name in measures.split(",")] if measures else MEASURES
    for name in names:
        if name not in MEASURES:
            raise MeasureError("measures", f"some of {', '.join(MEASURES)}", repr(name))
    fields["measures"] = tuple(name for name in names if measures or labelled or name != "usefulness")
    return validate(MeasureSettings, fields, field="measure", error=MeasureError)


def _load_sources(
    source: str, test: str | None, info: BundleInfo, arguments: SourceArguments, *, quiet: bool
) -> tuple[Source, Source | None]:
    from generator.models.bundle.real_images import load_similar_source, load_training_source

    real = load_training_source(source, info, **arguments.options())
    show_source_notices(real, quiet=quiet)
    if test is None:
        return real, None
    if test in ("test", "validation"):
        of_split = replace(arguments, split=test).options()
        return real, load_similar_source(source, info, real, **of_split)
    return real, load_similar_source(test, info, real, **replace(arguments, split=None).options())


def _bundle_encoder(bundle_location: Any) -> Any:
    import numpy as np
    import torch

    from generator.models.autoencoders.factory import load_encoder
    from generator.models.bundle import read_info
    from generator.models.bundle.load import load_encoder_weights

    _, info = read_info(bundle_location)
    weights = load_encoder_weights(bundle_location, info)
    return load_encoder(info.autoencoder, {name: torch.from_numpy(np.array(w)) for name, w in weights.items()})


def _report_lines(report: QualityReport) -> Iterator[str]:
    facts = report.subject
    yield click.style(f"{facts.synthetic_images} synthetic images, {facts.train_images} training images", bold=True)
    if (found := report.distribution) is not None:
        network = "a classifier" if report.features == "classifier" else "an encoder"
        yield f"  against {found.images} {found.against} images, features of {network}"
        yield f"  {'':18}  {'synthetic':>18}  {'real':>18}"
        for name, both in found.values.items():
            yield f"  {name.replace('_', ' '):18}  {_spread_text(both.synthetic):>18}  {_spread_text(both.real):>18}"
    for space, novelty in (report.novelty or {}).items():
        yield from _novelty_lines(space, novelty)
    if (duplicates := report.duplicates) is not None:
        yield f"  duplicates          {duplicates.exact} exact, {duplicates.near} near"
    if (usefulness := report.usefulness) is not None:
        yield f"  accuracy on {usefulness.test_images} real images of classifiers trained on"
        for name, arm in usefulness.arms.items():
            yield f"    {name:16}  {_arm_text(arm)}"


def _spread_text(value: Any) -> str:
    return f"{value.mean:.4f}" + ("" if value.spread is None else f" +- {value.spread:.4f}")


def _novelty_lines(space: str, novelty: Novelty) -> Iterator[str]:
    protection = novelty.protection
    between = "" if protection.low is None else f" ({protection.low:.3f} to {protection.high:.3f})"
    yield f"  novelty by {space}"
    share = f"{novelty.share:.4%}; a perfect generator: 0.1%"
    yield f"    copies            {novelty.copies} ({share}), {novelty.identical} identical"
    if novelty.shifted is not None:
        yield f"    copies, shifted   {novelty.shifted.copies} ({novelty.shifted.share:.4%}; by up to one pixel)"
    yield f"    authenticity      {novelty.authenticity:.3f} (unseen real images: {novelty.holdout_authenticity:.3f})"
    yield f"    protection        {protection.score:.3f}{between}"


def _arm_text(arm: ArmResult) -> str:
    spread = "" if arm.spread is None else f" +- {arm.spread:.4f}"
    removed = "" if arm.errors_removed is None else f", errors removed {arm.errors_removed:.1%}"
    return f"{arm.mean:.4f}{spread}   {arm.images} images, ratio {arm.ratio:.4f}{removed}"
