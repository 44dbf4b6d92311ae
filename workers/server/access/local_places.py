"""The places of tenant ``default`` in `latentmill up`, where no setting names them.

These are the folder ``datasets`` in the directory where it was started, the folders of that name one level below, and
the destinations of the tenant's jobs. Destinations are kept in the store root, so that the place of a job keeps its
name, and stays when the job is forgotten.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, final
from urllib.parse import unquote

from pydantic import Field

from generator.errors import LatentmillError, SpecError
from generator.spec.canonical import FrozenModel, read_json, validate
from generator.store import absolute_url, is_below, pointers
from generator.store.base import Store, is_segment

log = logging.getLogger(__name__)

FOLDER = "datasets"
RECORD = "tenants/default/places.json"
MAX_RECORD_BYTES = 1024 * 1024
_MAX_PLACES, _MAX_OTHERS = 500, 5000
_FRESH_SECONDS, _PAUSE_SECONDS = 3.0, 30.0  # until places are looked for again; after a failure

Destinations = Callable[[], Iterable[tuple[str, str]]]


class PlacesRecord(FrozenModel):
    """``places``: URLs of the destinations of jobs, by the names of their places. ``others``: the destinations of the
    jobs of other tenants, with which no place overlaps."""

    places: Annotated[dict[str, str], Field(max_length=_MAX_PLACES)] = Field(default_factory=dict)
    others: Annotated[tuple[str, ...], Field(max_length=_MAX_OTHERS)] = ()


@final
class LocalPlaces:
    """Finds these places. Safe to use from several threads."""

    def __init__(
        self, directory: Path, tenant: str, root: Store, jobs: Destinations, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``jobs``: the tenants and destinations of the jobs that are known. ``directory``: where `up` was started."""
        self._directory, self._tenant, self._root, self._jobs = directory.absolute(), tenant, root, jobs
        self._clock, self._lock = clock, threading.Lock()
        self._due, self._found, self._others = float("-inf"), dict[str, str](), frozenset[str]()

    def places(self) -> dict[str, str]:
        """The absolute URLs by name, as they were some seconds ago at most. While Redis or the store is away, as they
        were before."""
        with self._lock:
            if self._clock() >= self._due:
                self._due = self._clock() + _FRESH_SECONDS
                folders = dict(_folders(self._directory))
                self._found = folders | self._found
                try:
                    record = self._read()
                    self._note(record, folders)
                    self._note(self._with_jobs(record, folders), folders)
                except LatentmillError as away:
                    self._due = self._clock() + _PAUSE_SECONDS
                    log.warning("the destinations of jobs are not looked for: %s", away)
            return {
                name: url
                for name, url in self._found.items()
                if not self._is_forbidden(url) and not _overlaps(url, self._others)
            }

    def _in_root(self) -> dict[str, str]:
        """The place that the tenant has in the root where nothing else is set, if something was put there."""
        url = f"{self._root.url}/{FOLDER}/{self._tenant}"
        return {self._tenant: url} if self._tenant in self._root.children(f"{FOLDER}/") else {}

    def _note(self, record: PlacesRecord, folders: dict[str, str]) -> None:
        self._others, self._found = frozenset(record.others), record.places | self._in_root() | folders

    def _with_jobs(self, record: PlacesRecord, folders: dict[str, str]) -> PlacesRecord:
        jobs = list(self._jobs())
        places = (*folders.values(), *record.places.values())
        own = {url for tenant, url in jobs if tenant == self._tenant and not self._is_forbidden(url)}
        own = {url for url in own if not any(is_below(url, place) for place in places)}
        others = {url for tenant, url in jobs if tenant != self._tenant} - set(record.others)
        return self._keep(own, others, folders) if own or others else record

    def _keep(self, own: set[str], others: set[str], folders: dict[str, str]) -> PlacesRecord:
        def decide(data: bytes | None) -> bytes | None:
            record = _parse(data)
            places = dict(record.places)
            for url in sorted(own):
                if url not in places.values() and len(places) < _MAX_PLACES:
                    places[_name(url, {*places, *folders, FOLDER})] = url
            return validate(
                PlacesRecord,
                {"places": places, "others": sorted({*record.others, *others})},
                field=RECORD,
                error=SpecError,
            ).canonical()

        return _parse(pointers.move(self._root, RECORD, decide, MAX_RECORD_BYTES))

    def _read(self) -> PlacesRecord:
        return _parse(pointers.read(self._root, RECORD, MAX_RECORD_BYTES))

    def _is_forbidden(self, url: str) -> bool:
        """Whether a place would reach into the store root: its keys, or what is another tenant's there."""
        if is_below(url, self._root.url):
            return not is_below(url, f"{self._root.url}/{FOLDER}/{self._tenant}")
        return is_below(self._root.url, url)


def _folders(directory: Path) -> Iterator[tuple[str, str]]:
    yield FOLDER, absolute_url(str(directory / FOLDER))
    try:
        found = sorted(each for each in directory.iterdir() if is_segment(each.name) and not each.name.startswith("."))
    except OSError:
        return
    for each in found[:_MAX_PLACES]:
        if not each.is_symlink() and (each / FOLDER).is_dir() and is_segment(f"{each.name}-{FOLDER}"):
            yield f"{each.name}-{FOLDER}", absolute_url(str(each / FOLDER))


def _name(url: str, taken: set[str]) -> str:
    """A name for the place at ``url``: its last segment, with that before it where the name is taken."""
    *_, before, last = ["", *(_plain(part) for part in url.split("/") if _plain(part))]
    short = hashlib.sha256(url.encode()).hexdigest()[:6]
    names = (last, f"{before}-{last}", f"{last}-{short}", short)
    return next(name for name in names if is_segment(name) and name not in taken)


def _plain(part: str) -> str:
    return re.sub(r"[^A-Za-z0-9_=@+-]+", "-", unquote(part)).strip("-")[:100]


def _overlaps(url: str, others: frozenset[str]) -> bool:
    return any(is_below(url, other) or is_below(other, url) for other in others)


def _parse(data: bytes | None) -> PlacesRecord:
    if data is None:
        return PlacesRecord()
    return validate(PlacesRecord, read_json(data, field=RECORD, error=SpecError), field=RECORD, error=SpecError)
