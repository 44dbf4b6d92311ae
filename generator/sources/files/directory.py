"""Files of a directory tree, of one file, and of a pattern of paths."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from wcmatch import glob

from generator.errors import SourceError
from generator.sources.files.content import FileContent, file_content
from generator.sources.files.file_set import FileSet, SourceFile, in_order, printable
from generator.sources.files.junk import is_hidden, is_junk

_PATTERN = glob.GLOBSTAR | glob.BRACE | glob.NODIR
_MAX_DEPTH = 200
_LINK_HINT = "Give --follow-links to read what links point to."
JUNK = "system files"
HIDDEN = "hidden files"


@dataclass
class _Walk:
    """One walk over a tree: what was found, and the folders on the way down (device, inode), to stop at loops."""

    root: Path
    name: str
    follow_links: bool
    files: list[SourceFile] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    above: list[tuple[int, int]] = field(default_factory=list)
    resolved: Path = field(init=False)

    def __post_init__(self) -> None:
        self.resolved = self.root.resolve()


def list_directory(root: Path, *, follow_links: bool) -> FileSet:
    """All visible files below ``root``.

    Links to folders and to files outside ``root`` are a ``SourceError`` unless ``follow_links``; links that come back
    to a folder above them always are.
    """
    walk = _Walk(root, root.resolve().name or "images", follow_links)
    _walk(walk, root, "")
    return FileSet(walk.name, in_order(walk.files), tuple(walk.folders), walk.passed_over)


def list_file(path: Path) -> FileSet:
    """One file."""
    try:
        return FileSet(path.name, (_source_file(file_content(path), path.name),), single=True)
    except OSError as error:
        raise SourceError(path.name, "a readable file", error.strerror or error) from error


def list_pattern(pattern: str) -> FileSet:
    """The files that a pattern names: ``*``, ``?``, ``[a-z]``, ``**`` (any depth) and ``{000..127}``.

    Paths are relative to the last folder that the pattern names without wildcards.
    """
    root = pattern_root(pattern)
    try:
        found = glob.glob(pattern, flags=_PATTERN, limit=100_000)
    except Exception as error:  # wcmatch's own, which it does not export
        raise SourceError(pattern, "a pattern of at most 100000 alternatives", error) from error
    paths = sorted({Path(match) for match in found})
    names = [name for path in paths if not _is_passed_over(name := os.path.relpath(path, root or "."))]
    files = [_source_file(FileContent(root or ".", name), name) for name in names]
    return FileSet(Path(pattern).name, in_order(files))


def _is_passed_over(path: str) -> bool:
    parts = path.split("/")
    hidden = any(is_hidden(part) for part in parts if part != "..")
    return hidden or is_junk(parts[-1], folder=False) or any(is_junk(part, folder=True) for part in parts[:-1])


def has_wildcards(location: str) -> bool:
    """Whether a location is a pattern."""
    return glob.is_magic(location, flags=_PATTERN)


def pattern_root(pattern: str) -> str:
    """The part of a pattern before its first part with a wildcard."""
    parts = pattern.split("/")
    plain = next((i for i, part in enumerate(parts) if has_wildcards(part)), len(parts))
    return "/".join(parts[:plain]) or ("/" if pattern.startswith("/") else "")


def matches_pattern(path: str, pattern: str) -> bool:
    """Whether a path with '/' is one that ``pattern`` names."""
    return bool(glob.globmatch(path, pattern, flags=_PATTERN & ~glob.NODIR | glob.FORCEUNIX, limit=100_000))


def _walk(walk: _Walk, folder: Path, prefix: str) -> None:
    if len(walk.above) > _MAX_DEPTH:
        raise SourceError(_label(walk, prefix[:200]), f"folders at most {_MAX_DEPTH} deep", "deeper ones")
    try:
        facts = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(_label(walk, prefix), "a readable folder", error.strerror or error) from error
    walk.above.append((facts.st_dev, facts.st_ino))
    for entry in entries:
        path = f"{prefix}{entry.name}"
        if is_hidden(entry.name):
            walk.passed_over[HIDDEN] += 1
        elif _is_folder(walk, entry, path):
            if is_junk(entry.name, folder=True):
                walk.passed_over[JUNK] += 1
                continue
            walk.folders.append(path)
            _walk(walk, Path(entry.path), f"{path}/")
        elif is_junk(entry.name, folder=False):
            walk.passed_over[JUNK] += 1
        else:
            walk.files.append(_entry_file(walk, entry, path))
    walk.above.pop()


def _is_folder(walk: _Walk, entry: os.DirEntry[str], path: str) -> bool:
    try:
        if not entry.is_dir():
            return False
        if entry.is_symlink():
            facts = entry.stat()
            loops = (facts.st_dev, facts.st_ino) in walk.above
            if loops or not walk.follow_links:
                hint = "" if loops else _LINK_HINT
                got = "a link to a folder above it" if loops else "such a link"
                expected = "no links to folders or to files outside the source"
                raise SourceError(_label(walk, path), expected, got, hint)
    except OSError as error:
        raise SourceError(_label(walk, path), "a readable folder", error.strerror or error) from error
    return True


def _entry_file(walk: _Walk, entry: os.DirEntry[str], path: str) -> SourceFile:
    if entry.is_symlink() and not walk.follow_links and _points_outside(Path(entry.path), walk.resolved):
        expected = "no links to folders or to files outside the source"
        raise SourceError(_label(walk, path), expected, "such a link", _LINK_HINT)
    try:
        return _source_file(FileContent(str(walk.root), path), path, entry.stat())
    except OSError:  # a link to nothing: its reader says so
        return SourceFile(path, 0, "missing", FileContent(str(walk.root), path))


def _source_file(content: FileContent, relative: str, facts: os.stat_result | None = None) -> SourceFile:
    facts = facts or content.path.stat()
    version = f"{facts.st_mtime_ns:x}.{facts.st_ctime_ns:x}.{facts.st_ino:x}"
    return SourceFile(relative, facts.st_size, version, content)


def _points_outside(link: Path, root: Path) -> bool:
    try:
        return not link.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # the link is circular
        return True


def _label(walk: _Walk, path: str) -> str:
    return printable(f"{walk.name}/{path}".rstrip("/"))
