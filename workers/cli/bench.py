"""The command bench: measures how fast this machine makes images, and what limits it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workers.cli.image_size import Size
from workers.cli.output import json_option, show

if TYPE_CHECKING:
    from generator.production.profiling.profile import Profile
    from generator.spec.image_size import ImageSize


@click.command("bench")
@click.argument("bundle", required=False)
@click.option("--images", default=10_000, show_default=True, type=click.IntRange(min=500), help="Images to make.")
@click.option(
    "--size",
    default="64",
    show_default=True,
    type=Size(),
    help="Without a BUNDLE: image size in pixels, 64 or 96x64 (width x height).",
)
@click.option(
    "--format",
    "image",
    default="jpeg",
    show_default=True,
    type=click.Choice(["jpeg", "png"]),
    help="Image file format.",
)
@click.option("--batch", default=250, show_default=True, type=click.IntRange(1, 8192), help="Images per decoder batch.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, or cuda:N.")
@click.option(
    "--compile",
    "compiled",
    default="never",
    show_default=True,
    type=click.Choice(["always", "never"]),
    help="Compile the decoder.",
)
@click.option(
    "--price-per-hour",
    type=click.FloatRange(min=0.0),
    help="Price of this machine per hour, for the cost of a million images.",
)
@click.option(
    "--seconds",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0.0),
    help="Minimum time for which each stage is measured alone.",
)
@json_option
def bench_command(
    bundle: str | None,
    images: int,
    size: ImageSize,
    image: str,
    batch: int,
    device: str,
    compiled: str,
    price_per_hour: float | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure how fast this machine makes images with BUNDLE (by default, with a random network of typical size).

    Measures each stage alone, and a whole build into a temporary directory. Prints the time of each stage, the share
    of the theoretical limit that the build reaches, and recommended settings for a worker on this machine.
    """
    from generator.drafts import find_bundle
    from generator.models.bundle import load_bundle
    from generator.production.pipeline.decoders import CompileOptions
    from generator.production.profiling.profile import profile
    from generator.production.profiling.random_bundle import random_bundle
    from generator.spec.recipe import Recipe
    from generator.store import open_store
    from workers.settings import load_settings

    settings = load_settings()
    with tempfile.TemporaryDirectory(prefix="latentmill-bench-") as scratch:
        if bundle is None:
            loaded = random_bundle(Path(scratch) / "reference", size)
        else:
            loaded = load_bundle(find_bundle(bundle, open_store(settings.root, settings.s3), settings.s3))
        classes = len(loaded.info.classes) or 1
        recipe = Recipe.model_validate(
            {
                "bundle": loaded.digest,
                "classes": loaded.info.classes,
                "counts": [images // classes + (label < images % classes) for label in range(classes)],
                "image": {"format": image},
                "batch": batch,
            }
        )
        compiling = CompileOptions(compiled, settings.compile_cache)  # type: ignore[arg-type]
        profiled = profile(
            recipe,
            loaded,
            Path(scratch),
            device=device,
            compiling=compiling,
            price_per_hour=price_per_hour,
            stage_seconds=seconds,
        )
    if as_json:
        click.echo(json.dumps(profiled.model_dump(mode="json"), indent=2))
    else:
        _show_profile(profiled)


def _show_profile(profiled: Profile) -> None:
    machine = f"{profiled.device}, {profiled.cores} core(s), {profiled.execution}, batches of {profiled.batch}"
    show({"machine": machine, "image": profiled.image, "images": profiled.images}, as_json=False, title="bench")
    alone = {
        f"{stage} alone": f"{seconds * 1e6:,.1f} us of a core per image" for stage, seconds in profiled.alone.items()
    }
    show(alone, as_json=False, title="each stage alone")
    rates = {
        "decoding alone": f"{profiled.decode_rate:,.0f} images/s",
        "encoding alone": f"{profiled.encode_rate:,.0f} images/s",
        "limit": f"{profiled.limit:,.0f} images/s",
        "whole build": f"{profiled.whole_rate:,.0f} images/s, {profiled.cores_busy} cores busy",
        "share of the limit": f"{profiled.share_of_limit:.1%}",
        "where the time goes": ", ".join(
            f"{stage} {share}%" for stage, share in profiled.share.items() if share >= 0.1
        ),
    }
    if profiled.cost_per_million is not None:
        rates["cost of a million images"] = f"{profiled.cost_per_million:,.2f}"
    show(rates, as_json=False, title="whole build")
    advice = profiled.suggestion
    click.echo(
        f"recommended worker: --concurrency {advice.concurrency} --threads {advice.threads} (latentmill worker --tuned)"
    )
