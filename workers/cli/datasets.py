"""Commands that build and check one dataset: generate, verify, replay."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workers.cli.dataset_bundle import dataset_bundle, keep_bundle
from workers.cli.output import json_option, show
from workers.cli.progress import progress_bar

if TYPE_CHECKING:
    from generator.signatures import PublicKey
    from generator.store.base import Store


@click.command("generate")
@click.argument("spec", type=click.Path())
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, or cuda:N.")
@click.option(
    "--compile",
    "compiled",
    type=click.Choice(["auto", "always", "never"]),
    help="Compile the decoder: auto where it saves time.",
)
@json_option
def generate_command(spec: str, device: str, compiled: str | None, as_json: bool) -> None:
    """Build the dataset of SPEC (a YAML file) in this process, without Redis or workers.

    An interrupted build continues where it stopped. A build that is committed already is reported and not changed.
    """
    from generator.drafts import read_draft, resolve_draft
    from generator.models.bundle import load_bundle
    from generator.production.commit import find_manifest, locate_build
    from generator.production.mill import build
    from generator.production.pipeline.decoders import CompileOptions
    from generator.store import open_store
    from workers.settings import load_settings

    settings = load_settings()
    job, bundle = resolve_draft(read_draft(spec), open_store(settings.root, settings.s3), settings.s3)
    location = locate_build(job, settings.s3)
    if (done := find_manifest(location)) is not None:
        show(_facts(location.url, done), as_json=as_json, title="already committed")
        return
    start = time.perf_counter()
    with progress_bar(job.order.name, job.recipe.total, quiet=as_json) as bar:
        loaded = load_bundle(bundle, job.recipe.bundle)
        compiling = CompileOptions(compiled or settings.compile, settings.compile_cache)  # type: ignore[arg-type]
        manifest = build(location, loaded, device=device, compiling=compiling, on_progress=lambda at: bar(at.samples))
    seconds = time.perf_counter() - start
    keep_bundle(bundle, job.recipe.bundle, settings, quiet=as_json)
    pace = {"seconds": round(seconds, 2), "images_per_second": round(manifest.samples / seconds, 1)}
    show(_facts(location.url, manifest) | pace, as_json=as_json, title="committed")


@click.command("verify")
@click.argument("dataset")
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path),
    help="File of a public key that must have signed it; given several times, one of them.",
)
@click.option("--deep", is_flag=True, help="Also decode every image, and compare every sample with plan and table.")
@json_option
def verify_command(dataset: str, keys: tuple[Path, ...], deep: bool, as_json: bool) -> None:
    """Re-hash all files of DATASET (a path or URL) and compare them with its manifest. Exit code 1 on any damage.

    With --deep, what a faulty writer committed under right digests is found too. DATASET may be a bundle, too. With
    --key, what is not signed by that key is refused, with exit code 1.
    """
    from generator.datasets.verification import verify_dataset
    from generator.models.bundle.format import INFO_FILE
    from generator.signatures import read_public_key
    from generator.store import open_store
    from workers.settings import load_settings

    settings, trusted = load_settings(), [read_public_key(key) for key in keys]
    store = open_store(dataset, settings.s3)
    if store.head(INFO_FILE) is not None:
        show(_verify_bundle(store, trusted), as_json=as_json, title="intact")
        return
    with progress_bar("verifying", None, quiet=as_json, unit="shards") as bar:
        found = verify_dataset(dataset, settings.s3, on_shard=bar, deep=deep, trusted=trusted or None)
    facts = {
        "intact": not found.problems,
        "samples": found.samples,
        "shards": found.shards,
        "bytes": found.bytes,
    }
    problems = [{"where": problem.where, "what": problem.what} for problem in found.problems]
    if as_json:
        click.echo(json.dumps(facts | {"problems": problems}, indent=2))
    else:
        show(facts, as_json=False, title="intact" if not problems else f"{len(problems)} problem(s)")
        for problem in problems:
            click.echo(f"  {problem['where']}: {problem['what']}")
    if problems:
        raise click.exceptions.Exit(1)


@click.command("replay")
@click.argument("dataset")
@click.argument("index", type=click.IntRange(min=0))
@click.option("--bundle", help="Bundle directory or URL.  [default: the dataset's bundle, from the store root]")
@click.option("--out", type=click.Path(path_type=Path), help="Write the image to this file.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, or cuda:N.")
@json_option
def replay_command(dataset: str, index: int, bundle: str | None, out: Path | None, device: str, as_json: bool) -> None:
    """Make sample INDEX of DATASET again and compare it with the stored one. Exit code 1 if any byte differs."""
    from generator.datasets.replay import recipe_at, replay
    from generator.models.bundle import load_bundle
    from workers.settings import load_settings

    settings = load_settings()
    recipe = recipe_at(dataset, settings.s3)
    bundle_location = dataset_bundle(bundle, recipe.bundle, settings)
    again = replay(dataset, index, load_bundle(bundle_location, recipe.bundle), device=device, s3=settings.s3)
    if out is not None:
        out.write_bytes(again.data)
    facts = {"index": index, "attempt": again.attempt, "label": again.label, "identical": again.identical}
    differences = {"environment": again.environment_differences} if again.environment_differences else {}
    show(facts | differences, as_json=as_json, title="identical" if again.identical else "different")
    if not again.identical:
        raise click.exceptions.Exit(1)


def _verify_bundle(bundle: Store, trusted: list[PublicKey]) -> dict[str, Any]:
    """Read every file of a bundle. Raises ``BundleError`` naming an altered one, ``IntegrityError`` if not signed."""
    from generator.models.bundle.format import INFO_FILE
    from generator.models.bundle.load import read_info_bytes
    from generator.models.bundle.transfer import fetch
    from generator.signatures import check_signed
    from generator.spec.canonical import digest_of

    data = read_info_bytes(bundle)
    signed = {"signed_by": check_signed(bundle, INFO_FILE, data, trusted).id} if trusted else {}
    files = fetch(bundle, digest_of(data))
    facts = {"intact": True, "bundle": digest_of(data), "files": len(files), "bytes": sum(map(len, files.values()))}
    return facts | signed


def _facts(url: str, manifest: Any) -> dict[str, Any]:
    return {
        "dataset": url,
        "samples": manifest.samples,
        "shards": len(manifest.shards),
        "classes": len(manifest.classes),
        "bytes": manifest.bytes,
        "refused": manifest.refused,
        "preview": f"{url}/preview.jpg",
        **({"page": f"{url}/index.html"} if manifest.recipe.get("page") else {}),
    }
