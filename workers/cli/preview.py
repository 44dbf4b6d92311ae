"""The command preview: a few images of a spec, at once, by a worker of the pool."""

from __future__ import annotations

import time
from pathlib import Path

import click

from workers.cli.output import json_option, show


@click.command("preview")
@click.argument("spec", type=click.Path())
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File of the contact sheet."
)
@click.option("--count", default=64, show_default=True, type=click.IntRange(1, 256), help="Images.")
@json_option
def preview_command(spec: str, out: Path, count: int, as_json: bool) -> None:
    """Make the first images of SPEC (a YAML file) and draw them into one picture. Nothing of them is stored.

    They are those that the dataset will have. A worker of the pool makes them before its next shard. OUT is a JPEG, or
    a PNG if it is named so.
    """
    import io

    from PIL import Image

    from generator.errors import SpecError
    from workers.client import Client

    if out.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise SpecError("out", "a file named .jpg or .png", str(out))
    if not out.absolute().parent.is_dir():
        raise SpecError("out", "a file in a folder that exists", str(out))
    started = time.perf_counter()
    made = Client().preview(spec, count)
    seconds, sheet = time.perf_counter() - started, made.sheet()
    if out.suffix.lower() == ".png":
        with Image.open(io.BytesIO(sheet)) as picture, out.open("wb") as file:
            picture.save(file, "PNG")
    else:
        out.write_bytes(sheet)
    facts = {"images": len(made.images), "refused": made.refused, "seconds": round(seconds, 2), "sheet": out}
    show(facts, as_json=as_json, title="preview")
