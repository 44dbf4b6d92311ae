"""A folder of schedule files that a ticker copies into the store: one YAML file a schedule, for teams that use git.

A ticker stores a file when it sees it for the first time, and again whenever it changes; an invalid file leaves the
stored schedule as it was. Deleting a file removes nothing: use `latentmill schedule remove`. Tickers with different
folders do not conflict: each stores only the files whose change it saw itself.
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
    """The files of one folder and their last known versions. Raises ``SettingsError`` if the folder does not exist."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        if not folder.is_dir():
            raise SettingsError("LATENTMILL_SCHEDULES_DIR", "a folder of schedules (YAML files)", folder)
        self._path, self._settings = folder, settings
        self._last_files: dict[Path, FileVersion] | None = None  # the whole folder, as last listed
        self._synced: dict[Path, FileVersion] = {}  # the version of each file that is in the store

    def sync(self, root: Store, now: datetime) -> list[str]:
        """Store the schedules whose files have changed; returns their names."""
        files = {path: version for path in yaml_files(self._path) if (version := _file_version(path)) is not None}
        if files == self._last_files:
            return []
        names, unavailable = [], False
        for path, (schedule, digest) in _valid_schedules(read_schedules(list(files))).items():
            if self._synced.get(path) == files[path]:
                continue
            try:
                declare(schedule, digest, root, self._settings, now, replace=True)
            except OutsideError as error:
                log.warning("%s: not stored yet: %s", path.name, error)
                unavailable = True
            except LatentmillError as error:
                log.error("%s: not stored: %s", path.name, error)
            else:
                self._synced[path] = files[path]
                names.append(schedule.name)
        self._last_files = None if unavailable else files
        return names


FileVersion = tuple[int, int]  # modification time in nanoseconds, size in bytes
ReadResults = dict[Path, tuple[Schedule, str] | LatentmillError]


def yaml_files(folder: Path) -> list[Path]:
    """The YAML files of a folder, without its subfolders, sorted; a file gives itself."""
    if folder.is_file():
        return [folder]
    return sorted(path for path in folder.glob("*.y*ml") if path.suffix in (".yaml", ".yml") and path.is_file())


def read_schedules(paths: list[Path]) -> ReadResults:
    """The schedule of each file with the digest of its bytes, or its error; two files with one name are errors."""
    found: ReadResults = {}
    for path in paths:
        try:
            data = read_yaml_file(path, "schedule")
            found[path] = (parse_schedule(data, str(path)), digest_of(data))
        except LatentmillError as error:
            found[path] = error
    paths_by_name = defaultdict[str, list[Path]](list)
    for path, result in found.items():
        if isinstance(result, tuple):
            paths_by_name[result[0].name].append(path)
    for name, paths in paths_by_name.items():
        for path in paths if len(paths) > 1 else ():
            others = ", ".join(str(other) for other in paths if other != path)
            found[path] = SpecError("name", "a different name for each schedule", f"{name}, as in {others}")
    return found


def _valid_schedules(found: ReadResults) -> dict[Path, tuple[Schedule, str]]:
    for path, result in found.items():
        if isinstance(result, LatentmillError):
            log.error("%s: not stored: %s", path.name, result)
    return {path: result for path, result in found.items() if isinstance(result, tuple)}


def _file_version(path: Path) -> FileVersion | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size
