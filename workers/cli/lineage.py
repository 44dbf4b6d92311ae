"""The command that traces builds and images to what they were made of."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from workers.cli.output import json_option, show


@click.command("lineage")
@click.argument("target")
@click.option("--in", "places", multiple=True, help="A dataset or build (path or URL) in which an image is looked for.")
@json_option
def lineage_command(target: str, places: tuple[str, ...], as_json: bool) -> None:
    """Trace TARGET, a build or an image file, to recipe, bundle and source.

    The mark of an image names its build; --in says in which datasets to look for it, by the sha256 of the file. Exit
    code 1 if an image is in none of them.
    """
    from generator.datasets.lineage import MAX_IMAGE_BYTES, trace_build, trace_image
    from generator.errors import DatasetError
    from workers.settings import load_settings

    s3, path = load_settings().s3, Path(target)
    if not path.is_file():
        if places:
            raise DatasetError("image", "an image file, with --in", target)
        show(asdict(trace_build(target, s3)), as_json=as_json, title="build")
        return
    if (size := path.stat().st_size) > MAX_IMAGE_BYTES:
        raise DatasetError("image", f"a file of at most {MAX_IMAGE_BYTES} bytes", f"{size} bytes")
    found = trace_image(path.read_bytes(), places, s3)
    facts = {"sha256": found.sha256, "marked_synthetic": found.marked, "marked_build": found.marked_build}
    if found.sample is not None and found.build is not None:
        facts |= {"shard": found.shard, "sample": found.sample, **asdict(found.build)}
    elif not as_json and not places:
        click.echo("name the datasets to look in with --in", err=True)
    title = "not looked for" if not places else "found" if found.sample is not None else "not found"
    show(facts | {"searched": list(found.searched)}, as_json=as_json, title=title)
    if places and found.sample is None:
        raise click.exceptions.Exit(1)
