"""A folder of schedules that tickers bring into the store: one YAML file each, for teams that keep them in git.

A file is brought in when a ticker sees it for the first time, and again whenever it changes; one that is wrong leaves
the schedule as it was. Taking a file away removes nothing: `latentmill schedule remove` does. Tickers with different
folders do not fight: each brings in what changed before its own eyes.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import final

from generator.drafts import read_yaml_file
from generator.errors import LatentmillError, OutsideError, SettingsError, SpecError
from generator.spec.canonical import digest_of
from generator.store.base import Store
from workers.schedules.declare import declare
from workers.schedules.schedule import Schedule, parse_schedule
from workers.settings import Settings

log = logging.getLogger(__name__)


@final
class ScheduleFolder:
    """The files of one folder, and what was seen of them. Raises ``SettingsError`` where there is no folder."""

    def __init__(self, place: Path, settings: Settings) -> None:
        if not place.is_dir():
            raise SettingsError("LATENTMILL_SCHEDULES_DIR", "a folder of schedules (YAML files)", place)
        self._path, self._settings = place, settings
        self._last_files: dict[Path, FileVersion] | None = None  # the whole folder, when it was looked at last
        self._synced: dict[Path, FileVersion] = {}  # the files that are in the store as they are

    def sync(self, root: Store, now: datetime) -> list[str]:
        """Bring in what has changed; the names of those schedules."""
        files = {path: version for path in yaml_files(self._path) if (version := _file_version(path)) is not None}
        if files == self._last_files:
            return []
        names, away = [], False
        for path, (schedule, digest) in _valid_schedules(read_schedules(list(files))).items():
            if self._synced.get(path) == files[path]:
                continue
            try:
                declare(schedule, digest, root, self._settings, now, replace=True)
            except OutsideError as later:
                log.warning("%s: not brought in yet: %s", path.name, later)
                away = True
            except LatentmillError as wrong:
                log.error("%s: not brought in: %s", path.name, wrong)
            else:
                self._synced[path] = files[path]
                names.append(schedule.name)
        self._last_files = None if away else files
        return names


FileVersion = tuple[int, int]  # when it changed last, size
ReadResults = dict[Path, tuple[Schedule, str] | LatentmillError]


def yaml_files(place: Path) -> list[Path]:
    """The YAML files right in a folder; a file is itself."""
    if place.is_file():
        return [place]
    return sorted(path for path in place.glob("*.y*ml") if path.suffix in (".yaml", ".yml") and path.is_file())


def read_schedules(paths: list[Path]) -> ReadResults:
    """What each file declares, with the digest of its bytes, or what is wrong with it: two of one name are wrong."""
    found: ReadResults = {}
    for path in paths:
        try:
            data = read_yaml_file(path, "schedule")
            found[path] = (parse_schedule(data, str(path)), digest_of(data))
        except LatentmillError as wrong:
            found[path] = wrong
    places = defaultdict[str, list[Path]](list)
    for path, read in found.items():
        if isinstance(read, tuple):
            places[read[0].name].append(path)
    for name, paths in places.items():
        for path in paths if len(paths) > 1 else ():
            others = ", ".join(str(other) for other in paths if other != path)
            found[path] = SpecError("name", "a name of its own for each schedule", f"{name}, as in {others}")
    return found


def _valid_schedules(found: ReadResults) -> dict[Path, tuple[Schedule, str]]:
    for path, read in found.items():
        if isinstance(read, LatentmillError):
            log.error("%s: not brought in: %s", path.name, read)
    return {path: read for path, read in found.items() if isinstance(read, tuple)}


def _file_version(path: Path) -> FileVersion | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size
