"""The files of a source, in an order that does not depend on the file system they lie on."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from generator.sources.files.content import Content


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file. ``path`` is relative to the source, with '/'; ``version`` changes whenever its content does."""

    path: str
    size: int  # bytes
    version: str
    content: Content

    @property
    def suffix(self) -> str:
        """The ending in lower case, without the query of an address: '.jpg' for ``cat.JPG`` and ``cat.jpg?w=640``."""
        name = self.path.rpartition("/")[2].partition("?")[0]
        dot = name.rfind(".")
        return name[dot:].lower() if 0 < dot < len(name) - 1 else ""

    @property
    def file_name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class FileSet:
    """The visible files of a source and what was passed over, counted by kind.

    ``name``: for messages. ``folders``: all visible folders, also empty ones, as relative paths. ``single``: whether
    the location names one file.
    """

    name: str
    files: tuple[SourceFile, ...]
    folders: tuple[str, ...] = ()
    passed_over: Counter[str] = field(default_factory=Counter)
    single: bool = False

    def label(self, file: SourceFile) -> str:
        """How messages name a file of this set."""
        return printable(self.name if self.single else f"{self.name}/{file.path}")

    def select(self, wanted: Callable[[SourceFile], bool]) -> tuple[SourceFile, ...]:
        """The files for which ``wanted`` is true, in order."""
        return tuple(file for file in self.files if wanted(file))


def printable(name: str) -> str:
    """A name for messages: control characters and bytes that are no text are written as escapes."""
    if name.isprintable():
        return name
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in name)


def in_order(files: Iterable[SourceFile]) -> tuple[SourceFile, ...]:
    """Files in the order of the composed (NFC) names of their folders and files.

    File systems differ in the form of names that they return; names that differ by their form alone keep an order too.
    """
    return tuple(sorted(files, key=lambda file: (composed_parts(file.path), file.path)))


def composed_parts(path: str) -> tuple[str, ...]:
    """The parts of a path in Unicode NFC."""
    return tuple(unicodedata.normalize("NFC", path).split("/"))
