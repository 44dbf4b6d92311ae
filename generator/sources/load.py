"""Loads a source of any kind from its location."""

from __future__ import annotations

from dataclasses import dataclass, replace

from generator.errors import SourceError
from generator.sources.base import (
    ProgressCallback,
    Source,
    SourceFacts,
    check_channels,
    check_numbers,
    check_size,
    make_source,
)
from generator.sources.cache import PixelCache, cache_key
from generator.sources.duplicates import count_duplicates
from generator.sources.files.file_set import FileSet
from generator.sources.kinds.digits import list_digits
from generator.sources.kinds.folder import list_folder
from generator.sources.kinds.npz import list_npz
from generator.sources.kinds.parquet import list_parquet
from generator.sources.kinds.webdataset import list_webdataset
from generator.sources.labels import Labels, used_classes
from generator.sources.listing import EMPTY_FOLDERS, Listing, ListOptions, select_listed
from generator.sources.location import DIGITS, Kind, find_files, kind_of_files
from generator.sources.pixels.arrays import convert_arrays
from generator.sources.pixels.decode import DecodedImages, DecodeSettings, EncodedImages, decode_images
from generator.sources.pixels.storage import Allocate, allocate_images, keep_images
from generator.sources.splits import DEFAULT_SPLIT, check_split_name
from generator.spec.image_size import AnySize
from generator.spec.reading import Reading, Rules
from generator.store.s3_settings import S3Settings
from generator.store.url import is_remote

_SHOWN_SIZES = 20


_EMPTY = "classes without an image"


@dataclass(frozen=True)
class _Request:
    location: str
    found: FileSet
    kind: Kind
    name: str
    settings: DecodeSettings
    wanted: ListOptions


def load_source(
    location: str,
    *,
    size: AnySize | None = None,
    channels: int | None = None,
    split: str | None = None,
    reading: Reading | None = None,
    skip_bad: bool = False,
    follow_links: bool = False,
    allow_empty: bool = False,
    rules: Rules = 2,
    s3: S3Settings | None = None,
    cache: PixelCache | None = None,
    progress: ProgressCallback | None = None,
) -> Source:
    """The real images at ``location``: a path, a pattern, a URL (``file://``, ``s3://``, ``gs://``,
    ``az://``), or the word ``digits``.

    ``size`` (sides of 8 .. 512): side, or width and height, that images are brought to; by default 64 for folders, and
    for the other kinds the size of the images, which must be one. ``channels``: 1 (grey) or 3 (RGB); by default RGB if
    at least one image has colour. ``split``: ``train``, ``validation`` or ``test``; by default ``train`` where there
    are several. ``reading``: columns, classes, scale, resizing. ``skip_bad``: list unreadable images in ``skipped``
    instead of failing at the first. ``follow_links``: follow links to folders and out of the source. ``allow_empty``:
    pass over folders without images. ``rules``: 1 reads a source as releases before recipe version 2 did, for bundles
    that were made by them. ``s3``: how S3 is reached. ``cache``: where decoded pixels are kept. ``progress(done,
    total)`` is called from this thread from time to time.

    Large sources are on disk: in the cache if there is one, else in a temporary file. The result is the same on every
    run and with any number of threads. Raises ``SourceError``; ``StoreError`` for sources in an object store.
    """
    sides = check_size(size)
    check_channels(channels)
    chosen_split, reading = check_split_name(split), reading or Reading()
    kind: Kind = DIGITS
    found = FileSet(DIGITS, (), single=True)
    if location != DIGITS:
        found = find_files(location, follow_links=follow_links, s3=s3)
        kind = kind_of_files(location, found)
    name = found.name if chosen_split in (None, DEFAULT_SPLIT) else f"{found.name}:{chosen_split}"
    settings = DecodeSettings(sides, channels, reading, skip_bad, rules=rules)
    wanted = ListOptions(reading, chosen_split, allow_empty, rules)
    request = _Request(location, found, kind, name, settings, wanted)
    if cache is None or kind == DIGITS:
        return _read(request, allocate_images, progress)
    key = cache_key(found, settings, chosen_split, allow_empty=allow_empty)
    with cache.locked(key):
        kept = cache.find(key)
        if kept is None:
            with cache.draft() as draft:
                kept = draft.keep(key, _read(request, draft.allocate, progress))
                cache.share_entry(key, _equal_keys(request, kept))
        return replace(kept, name=name)


def _equal_keys(request: _Request, kept: Source) -> set[str]:
    """The keys of requests that give the same source: those that ask for the size and channels that were found, and
    those that pass over what is not there (unreadable images, classes without images), or do not."""
    settings, facts = request.settings, kept.facts
    empty = EMPTY_FOLDERS in dict(facts.passed_over) or any(each.startswith(_EMPTY) for each in facts.notices)
    return {
        cache_key(
            request.found,
            replace(settings, size=size, channels=channels, skip_bad=skip_bad),
            request.wanted.split,
            allow_empty=allow_empty,
        )
        for size in (settings.size, kept.size)
        for channels in (settings.channels, kept.images_NHWC.shape[3])
        for skip_bad in ((True,) if kept.skipped else (True, False))
        for allow_empty in ((True,) if empty else (True, False))
    }


def _read(request: _Request, allocate: Allocate, progress: ProgressCallback | None) -> Source:
    """List, decode and check a source, without a cache."""
    name, reading = request.found.name, request.wanted.reading
    listing = select_listed(_list(request), reading.classes, name=name)
    settings = replace(request.settings, default_size=listing.default_size)
    decoded = _decode(listing, settings, allocate, progress)
    labels = listing.labels
    labels_N = labels.labels_N
    if labels_N is not None:
        labels = Labels(check_numbers(labels_N, labels.names, field=f"{name}:labels")[decoded.kept_N], labels.names)
    if request.wanted.allow_empty:
        labels, unused = used_classes(labels)
        told = f"{_EMPTY}: {', '.join(unused[:20])}"
        listing = replace(listing, notices=(*listing.notices, told)) if unused else listing
    images_NHWC = keep_images(decoded.images_NHWC, decoded.kept_N)
    return make_source(
        images_NHWC,
        labels.labels_N,
        labels.names,
        name=request.name,
        skipped=decoded.skipped,
        facts=_facts(listing, decoded, count_duplicates(images_NHWC), request.wanted),
    )


def _list(request: _Request) -> Listing:
    found, wanted = request.found, request.wanted
    remote = is_remote(request.location)
    if request.kind == "digits":
        if wanted.split not in (None, DEFAULT_SPLIT):
            raise SourceError("split", "'train', as the digits have no other part", repr(wanted.split))
        return list_digits()
    if request.kind == "parquet":
        return list_parquet(found, wanted)
    if request.kind == "webdataset":
        return list_webdataset(found, wanted, remote=remote)
    if request.kind == "npz":
        return list_npz(found.files[0], found.name, wanted)
    return list_folder(found, wanted, remote=remote)


def _decode(
    listing: Listing, settings: DecodeSettings, allocate: Allocate, progress: ProgressCallback | None
) -> DecodedImages:
    try:
        if isinstance(listing.images, EncodedImages):
            return decode_images(listing.images, settings, allocate=allocate, progress=progress)
        return convert_arrays(listing.images, settings, allocate=allocate, progress=progress)
    except (MemoryError, OSError) as error:
        expected = "images that fit in memory, or in the directory for temporary files"
        got = error.strerror if isinstance(error, OSError) and error.strerror else "no room"
        raise SourceError(f"{listing.images.name}:images", expected, f"{listing.count} images: {got}") from error


def _facts(listing: Listing, decoded: DecodedImages, duplicates: int, wanted: ListOptions) -> SourceFacts:
    reading, notices = wanted.reading, listing.notices
    if decoded.scale is None and reading.white is not None:
        reading = reading.model_copy(update={"white": None, "black": None})
        notices = (*notices, "--white has no effect: no image has more than 8 bits")
    if decoded.scale is not None and reading.white is None:
        reading = reading.model_copy(update={"white": decoded.scale.white})
        notices = (*notices, f"pixels of more than 8 bits: {decoded.scale.describe()}; --white states another value")
    sizes = decoded.sizes.most_common()
    shown = sizes[:_SHOWN_SIZES]
    return SourceFacts(
        kind=listing.kind,
        reading=reading,
        rules=wanted.rules,
        split=listing.split,
        splits=listing.splits,
        image_column=listing.image_column,
        label_column=listing.label_column,
        sizes=tuple((width, height, count) for (width, height), count in shown),
        other_sizes=sum(count for _, count in sizes[_SHOWN_SIZES:]),
        modes=tuple(decoded.modes.most_common()),
        duplicates=duplicates,
        passed_over=tuple(listing.passed_over.most_common()),
        notices=notices,
    )


def source_kind(location: str, *, s3: S3Settings | None = None) -> Kind:
    """The kind of a source: ``digits``, ``parquet``, ``webdataset``, ``folder`` or ``npz``. Raises ``SourceError``."""
    return DIGITS if location == DIGITS else kind_of_files(location, find_files(location, s3=s3))
