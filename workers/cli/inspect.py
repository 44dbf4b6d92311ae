"""The command inspect: describes a bundle, and diagnoses whether its latent space is samplable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workers.cli.output import json_option, show
from workers.cli.progress import progress_bar
from workers.cli.source_options import SourceArguments, later_source_options, take_source_arguments

if TYPE_CHECKING:
    from generator.curation.diagnosis.diagnose import Diagnosis
    from generator.models.bundle import Bundle, TrainingFacts
    from generator.sources import Source
    from generator.store.base import Store


@click.command("inspect")
@click.argument("bundle")
@click.argument("other", required=False)
@click.option("--source", help="The training images of BUNDLE, to show the nearest ones beside samples.")
@click.option(
    "--picture", type=click.Path(path_type=Path), help="Also draw samples of every class to this PNG or JPEG file."
)
@click.option(
    "--pictures",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also draw a map of the codes, cluster centres, walks and nearest neighbours into this directory.",
)
@click.option("--quick", is_flag=True, help="A shorter diagnosis: without flow, two-sample tests and round trip.")
@click.option("--no-diagnosis", is_flag=True, help="Only print the facts in the bundle.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1), help="Seed of the diagnosis.")
@later_source_options
@json_option
def inspect_command(
    bundle: str,
    other: str | None,
    source: str | None,
    picture: Path | None,
    pictures: Path | None,
    quick: bool,
    no_diagnosis: bool,
    seed: int,
    as_json: bool,
    **given: Any,
) -> None:
    """Describe BUNDLE (a directory or URL), and diagnose whether its latent space is samplable.

    With OTHER, compare two bundles side by side: BUNDLE is the blue network, OTHER the red one.
    """
    from generator.models.bundle import load_bundle
    from generator.store import open_store
    from workers.settings import load_settings

    stores = [open_store(place, load_settings().s3) for place in (bundle, other) if place is not None]
    loaded = [(store, load_bundle(store)) for store in stores]
    images = _training_source(source, loaded[0][1], take_source_arguments(given)) if source is not None else None
    if picture is not None:
        from generator.curation.quality.sample_sheets import draw_samples

        draw_samples(loaded[0][1], picture)
    facts = [_facts(found, as_json=as_json) for _, found in loaded]
    facts[0] |= {"picture": str(picture)} if picture else {}
    diagnoses = [] if no_diagnosis else _diagnose_all(loaded, seed=seed, quick=quick, quiet=as_json)
    if pictures is not None:
        _draw_pictures(loaded, pictures, images, seed)
        facts[0] |= {"pictures": str(pictures)}
    _show_result(facts, diagnoses, as_json=as_json)


def _training_source(location: str, bundle: Bundle, arguments: SourceArguments) -> Source:
    from generator.curation.diagnosis.pictures import training_images
    from generator.models.bundle.real_images import load_training_source

    source = load_training_source(location, bundle.info, **arguments.options())
    training_images(source, bundle)  # an error shows before anything is measured
    return source


def _diagnose_all(loaded: list[tuple[Store, Bundle]], *, seed: int, quick: bool, quiet: bool) -> list[Diagnosis]:
    from generator.curation.diagnosis.diagnose import PROGRESS_STEPS, diagnose

    with progress_bar("diagnosing", PROGRESS_STEPS * len(loaded), quiet=quiet, unit="steps") as bar:
        done = 0

        def step(_: str) -> None:
            nonlocal done
            done += 1
            bar(done)

        return [diagnose(store, bundle, seed=seed, quick=quick, say=step) for store, bundle in loaded]


def _draw_pictures(loaded: list[tuple[Store, Bundle]], directory: Path, source: Source | None, seed: int) -> None:
    from generator.curation.diagnosis.pictures import draw_map_pair, draw_pictures, load_picture_inputs

    inputs = [load_picture_inputs(store, bundle, seed) for store, bundle in loaded]
    if len(inputs) == 1:
        draw_pictures(inputs[0], directory, source=source, seed=seed)
        return
    blue, red = inputs
    same = source is not None and source.fingerprint == red.bundle.info.source.fingerprint
    draw_pictures(blue, directory, prefix="blue-", source=source, seed=seed)
    draw_pictures(red, directory, prefix="red-", source=source if same else None, seed=seed)
    draw_map_pair(blue, red, directory)


def _show_result(facts: list[dict[str, Any]], diagnoses: list[Diagnosis], *, as_json: bool) -> None:
    from generator.curation.diagnosis.diagnose import compare
    from workers.cli.diagnosis_output import show_comparison, show_diagnosis

    comparison = compare(diagnoses[0], diagnoses[1]) if len(diagnoses) == 2 else None
    if as_json:
        documents = [
            one | ({"diagnosis": diagnoses[at].model_dump(mode="json")} if diagnoses else {})
            for at, one in enumerate(facts)
        ]
        both = {
            "blue": documents[0],
            "red": documents[-1],
            "comparison": comparison and comparison.model_dump(mode="json"),
        }
        click.echo(json.dumps(documents[0] if len(documents) == 1 else both, indent=2, default=str))
        return
    for title, one in zip(("verified bundle",) if len(facts) == 1 else ("blue", "red"), facts, strict=True):
        show(one, as_json=False, title=title)
    if comparison is not None:
        show_comparison(diagnoses[0], diagnoses[1], comparison)
    elif diagnoses:
        show_diagnosis(diagnoses[0])


def _facts(loaded: Bundle, *, as_json: bool) -> dict[str, Any]:
    info = loaded.info
    clusters = info.latents.get("clusters", [])
    return {
        "digest": loaded.digest,
        "image": f"{info.image.height} x {info.image.width}, {'RGB' if info.image.channels == 3 else 'grey'}",
        "model": info.autoencoder.family,
        "decoder_parameters": sum(weight.size for weight in loaded.decoder.values()),
        "latent_dim": info.latent_dim,
        "sampler": info.latents["family"],
        "classes": list(info.classes) if as_json else ", ".join(info.classes) or "none (unlabelled)",
        "clusters": clusters if as_json else ", ".join(str(count) for count in clusters),
        "source": info.source.name,
        "source_fingerprint": info.source.fingerprint,
        "images": info.source.images + info.source.holdout,
        "trained_on": info.source.images,
        "held_out": info.source.holdout,
        **({} if info.training is None else _training_facts(info.training)),
        **{name: info.fitting.chosen[name] for name in ("density_auroc",) if name in info.fitting.chosen},
    }


def _training_facts(facts: TrainingFacts) -> dict[str, Any]:
    """Of the training of the autoencoder; of an imported one that was not trained further, the seed of the split."""
    best = next((record for record in reversed(facts.history) if record.best), None)
    if best is None:
        return {"epochs": len(facts.history), "seed": facts.settings.seed}
    return {
        "epochs": len(facts.history),
        "best_epoch": best.epoch,
        "holdout_loss": round(best.holdout_loss, 5),
        "seed": facts.settings.seed,
    }
