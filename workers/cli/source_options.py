"""Options of commands that read real images, and the reading itself: progress, notices, cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from workers.cli.option_groups import add_options
from workers.cli.progress import progress_bar

if TYPE_CHECKING:
    from generator.sources import Source
    from generator.spec.image_size import ImageSize

F = TypeVar("F", bound=Callable[..., Any])

_PLACE_OPTIONS = {
    "split": click.option(
        "--split", help="train, validation or test, where SOURCE has several.  [default: train, or the only one]"
    ),
    "skip_bad": click.option("--skip-bad", is_flag=True, help="Skip broken images, and list them."),
    "follow_links": click.option(
        "--follow-links", is_flag=True, help="Follow links to folders, and to files outside of SOURCE."
    ),
    "allow_empty": click.option("--allow-empty", is_flag=True, help="Pass over folders without images."),
}
_READING_OPTIONS = {
    "label": click.option(
        "--label", help="Column of the labels, or none to read without labels.  [default: found by its type]"
    ),
    "image": click.option("--image", help="Column, array or file ending of the images.  [default: found by its type]"),
    "classes": click.option("--classes", help="Comma-separated classes to read, in the order of their labels."),
    "white": click.option(
        "--white",
        type=float,
        help="More than 8 bits: the pixel value that is white.  [default: of the fewest bits that hold all values]",
    ),
    "black": click.option("--black", type=float, help="More than 8 bits: the value that is black.  [default: 0]"),
    "resize": click.option(
        "--resize",
        type=click.Choice(("crop", "pad", "stretch")),
        help="Other proportions: crop the middle, pad with white, or stretch.  [default: crop]",
    ),
}


@dataclass(frozen=True)
class SourceArguments:
    """What the options say about a source. ``reading`` holds only what was given."""

    reading: dict[str, Any]
    split: str | None = None
    skip_bad: bool = False
    follow_links: bool = False
    allow_empty: bool = False

    def options(self) -> dict[str, Any]:
        """Options of ``load_source``, without size, channels and progress. Raises ``SourceError``."""
        from generator.errors import SourceError
        from generator.sources import PixelCache, Reading
        from generator.spec.canonical import validate
        from workers.settings import load_settings

        settings = load_settings()
        cache = PixelCache(settings.source_cache, settings.source_cache_bytes) if settings.source_cache_bytes else None
        options: dict[str, Any] = {
            "split": self.split,
            "skip_bad": self.skip_bad,
            "follow_links": self.follow_links,
            "allow_empty": self.allow_empty,
            "s3": settings.s3,
            "cache": cache,
        }
        if self.reading:
            options["reading"] = validate(Reading, self.reading, field="source", error=SourceError)
        return options


SOURCE_OPTIONS: dict[str, Callable[[Any], Any]] = {**_PLACE_OPTIONS, **_READING_OPTIONS}


def source_options(command: F) -> F:
    """All options of a command that reads a source of its own."""
    return add_options(SOURCE_OPTIONS)(command)


def later_source_options(command: F) -> F:
    """The options of a command that reads a source for a bundle, which knows the rest."""
    return add_options(_PLACE_OPTIONS)(command)


def take_source_arguments(given: dict[str, Any]) -> SourceArguments:
    """The options of a source among ``given``, which are removed from it."""
    reading = {name: given.pop(name) for name in _READING_OPTIONS if name in given}
    place = {name: given.pop(name) for name in _PLACE_OPTIONS if name in given}
    reading = {name: value for name, value in reading.items() if value is not None}
    if "classes" in reading:
        reading["classes"] = tuple(name.strip() for name in reading["classes"].split(","))
    return SourceArguments(reading, **place)


def read_source(
    location: str,
    arguments: SourceArguments,
    *,
    size: ImageSize | None,
    channels: int | None,
    quiet: bool,
    notices: bool = True,
) -> Source:
    """The real images at ``location``, with progress, and with ``notices`` of what a person should know of them."""
    from generator.sources import load_source

    options = arguments.options()
    with progress_bar("reading", None, quiet=quiet) as bar:
        source = load_source(location, size=size, channels=channels, **options, progress=lambda done, _: bar(done))
    show_source_notices(source, quiet=quiet or not notices)
    return source


def show_source_notices(source: Source, *, quiet: bool) -> None:
    """Write what was skipped, what was passed over and how the source was read to standard error."""
    if quiet:
        return
    for skipped in source.skipped:
        click.echo(f"skipped {skipped.file}: {skipped.reason}", err=True)
    for notice in source_notices(source):
        click.echo(notice, err=True)


def source_notices(source: Source) -> list[str]:
    """What a person should know of a source before training, in sentences."""
    facts = source.facts
    notices = list(facts.notices)
    if facts.split is not None:
        others = ", ".join(split for split in facts.splits if split != facts.split)
        notices.append(f"the split {facts.split!r} is read; --split reads another one ({others})")
    if facts.passed_over:
        notices.append("passed over: " + ", ".join(f"{count:,} {kind}" for kind, count in facts.passed_over))
    return notices
