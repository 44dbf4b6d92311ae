"""The command sources: looks at real images without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workers.cli.image_size import Size
from workers.cli.output import json_option, show
from workers.cli.source_options import read_source, source_notices, source_options, take_source_arguments

if TYPE_CHECKING:
    from generator.sources import Source
    from generator.spec.image_size import ImageSize
    from workers.cli.source_options import SourceArguments

_SHOWN_CLASSES = 40
_SHOWN_SIZES = 5
_SHOWN_SKIPPED = 10


@click.command("sources")
@click.argument("source")
@click.option(
    "--size", type=Size(), help="Size to bring images to, 64 or 96x64.  [default: theirs, or 64 if they differ]"
)
@click.option("--channels", type=int, help="1 (grey) or 3 (colour); by default as in the source.")
@source_options
@click.option("--picture", type=click.Path(path_type=Path), help="Draw images of every class to this PNG or JPEG file.")
@json_option
def sources_command(
    source: str, size: ImageSize | None, channels: int | None, picture: Path | None, as_json: bool, **given: Any
) -> None:
    """Look at SOURCE, the real images for a training, without training.

    SOURCE is `digits` (bundled), a folder of images or of class folders, Hugging Face Parquet, WebDataset tars, a .zip,
    or a .npz file: a path, a pattern ('data/**/*.tar', 'shards/{000..127}.tar'), or a URL (s3://, gs://, az://).
    Unreadable images are listed, never an error here.
    """
    arguments = take_source_arguments({**given, "skip_bad": True, "allow_empty": True})
    images, size_chosen = _read(source, arguments, size, channels, quiet=as_json)
    facts = _facts(images, as_json=as_json)
    if size_chosen is not None and not as_json:
        facts["notices"] = [*facts.get("notices", []), size_chosen]
    if picture is not None:
        from generator.curation.quality.sample_sheets import draw_source

        draw_source(images, picture)
        facts["picture"] = str(picture)
    if as_json:
        show(facts, as_json=True)
        return
    notices = facts.pop("notices", [])
    show(facts, as_json=False, title=images.name)
    for notice in notices:
        click.echo(f"  {notice}")


def _read(
    location: str, arguments: SourceArguments, size: ImageSize | None, channels: int | None, *, quiet: bool
) -> tuple[Source, str | None]:
    """The source, and a sentence if its images had to be brought to a size that nobody chose."""
    from generator.errors import SourceError
    from generator.sources.base import DEFAULT_SIZE, SIZE_HINT

    try:
        return read_source(location, arguments, size=size, channels=channels, quiet=quiet, notices=False), None
    except SourceError as error:
        if size is not None or error.hint != SIZE_HINT:
            raise
    images = read_source(location, arguments, size=DEFAULT_SIZE, channels=channels, quiet=quiet, notices=False)
    return images, f"images differ in size: training needs --size (this is {DEFAULT_SIZE})"


def _facts(images: Source, *, as_json: bool) -> dict[str, Any]:
    facts, counts = images.facts, images.class_counts()
    found: dict[str, Any] = {
        "kind": facts.kind,
        "images": len(images),
        "classes": list(images.class_names),
        "counts": counts,
        "split": facts.split,
        "splits": list(facts.splits),
        "label_column": facts.label_column,
        "image_column": facts.image_column,
        "sizes": [{"width": width, "height": height, "images": count} for width, height, count in facts.sizes],
        "other_sizes": facts.other_sizes,
        "modes": dict(facts.modes),
        "black": facts.reading.black,
        "white": facts.reading.white,
        "read_as": f"{images.size}, {'colour' if images.channels == 3 else 'grey'}",
        "fingerprint": images.fingerprint,
        "duplicates": facts.duplicates,
        "skipped": [{"file": each.file, "reason": each.reason} for each in images.skipped],
        "passed_over": dict(facts.passed_over),
        "notices": list(facts.notices),
    }
    return found if as_json else _as_text(found, images)


def _as_text(found: dict[str, Any], images: Source) -> dict[str, Any]:
    counts = found["counts"]
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:_SHOWN_CLASSES]]
    more = len(counts) - len(shown)
    sizes = [f"{each['width']}x{each['height']} ({each['images']:,})" for each in found["sizes"][:_SHOWN_SIZES]]
    rest = found["other_sizes"] + sum(each["images"] for each in found["sizes"][_SHOWN_SIZES:])
    skipped = [f"{each['file']}: {each['reason']}" for each in found["skipped"][:_SHOWN_SKIPPED]]
    text: dict[str, Any] = {
        "kind": found["kind"],
        "images": found["images"],
        "classes": [*shown, *([f"and {more} more"] if more > 0 else [])] if counts else "none: unlabelled",
        "split": found["split"],
        "label column": found["label_column"],
        "image column": found["image_column"],
        "sizes": [*sizes, *([f"others ({rest:,})"] if rest else [])],
        "modes": [f"{mode} ({count:,})" for mode, count in found["modes"].items()],
        "white": found["white"],
        "read as": found["read_as"],
        "fingerprint": found["fingerprint"],
        "duplicates": found["duplicates"],
        "unreadable": len(found["skipped"]),
        "notices": [*(f"unreadable: {each}" for each in skipped), *source_notices(images)],
    }
    return {name: value for name, value in text.items() if value is not None}
