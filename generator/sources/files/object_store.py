"""Files of a source in an object store: S3, Google Cloud Storage, Azure."""

from __future__ import annotations

import io
import tempfile
import threading
from collections import Counter, OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast, final

from generator.errors import SourceError
from generator.sources.files.content import MAX_MEMBER_BYTES, Content
from generator.sources.files.directory import HIDDEN, JUNK, has_wildcards, matches_pattern, pattern_root
from generator.sources.files.file_set import FileSet, SourceFile, in_order
from generator.sources.files.junk import is_hidden, is_junk
from generator.store.objects import Objects, open_objects
from generator.store.s3_settings import S3Settings

_STEP = 2**24  # bytes of one request
_BLOCK, _KEPT_BLOCKS = 2**22, 24  # bytes; 96 MiB in all
_SMALL = 2**26  # larger objects are read into a temporary file


def list_objects(url: str, settings: S3Settings | None) -> FileSet:
    """The visible objects below ``url``: an object, a prefix, or a pattern. Raises ``SourceError``, ``StoreError``."""
    objects, key = open_objects(url, settings)
    name = f"{objects.url}/{key}".rstrip("/").rpartition("/")[2]
    root, pattern = key.rstrip("/"), None
    listed = [info for info in objects.list(root) if not info.key.endswith("/")]
    if not listed and has_wildcards(key):  # no key begins with these characters themselves
        root, pattern = pattern_root(key), key
        listed = [info for info in objects.list(root) if not info.key.endswith("/")]
    if pattern is None and not key.endswith("/"):
        single = next((info for info in listed if info.key == key), None)
        if single is not None:
            content = ObjectContent(objects, key, single.size, single.etag)
            return FileSet(name, (SourceFile(name, single.size, single.etag, content),), single=True)
    below = f"{root}/" if root else ""
    passed_over: Counter[str] = Counter()
    files, folders = list[SourceFile](), set[str]()
    for info in listed:
        if not info.key.startswith(below) or (pattern and not matches_pattern(info.key, pattern)):
            continue
        path = info.key.removeprefix(below)
        parts = path.split("/")
        if any(is_hidden(part) for part in parts):
            passed_over[HIDDEN] += 1
        elif any(is_junk(part, folder=True) for part in parts[:-1]) or is_junk(parts[-1], folder=False):
            passed_over[JUNK] += 1
        else:
            folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
            content = ObjectContent(objects, info.key, info.size, info.etag)
            files.append(SourceFile(path, info.size, info.etag, content))
    if not files:
        raise SourceError(url, "objects below this prefix, or of this pattern", "none")
    return FileSet(name, in_order(files), tuple(sorted(folders)), passed_over)


@final
@dataclass(frozen=True)
class ObjectContent(Content):
    """One version of an object. Small ones are read into memory, large ones once into a temporary file."""

    objects: Objects
    key: str
    size: int
    etag: str
    _download: _Download = field(default_factory=lambda: _Download(), compare=False, repr=False)

    def open(self) -> BinaryIO:
        if self.size <= _SMALL:
            return io.BytesIO(self.read_part(0, self.size))
        return self._download.open(self)

    def head(self, length: int) -> bytes:
        return self.read_part(0, min(length, self.size))

    def read(self) -> bytes:
        if self.size > MAX_MEMBER_BYTES:
            raise OSError(f"{self.size} bytes, more than {MAX_MEMBER_BYTES}")
        return self.read_part(0, self.size)

    def read_part(self, start: int, length: int) -> bytes:
        """Parts are read in blocks, of which some are kept: the members of an archive follow each other."""
        if length >= min(self.size, _BLOCK):
            return self.objects.read(self.key, start, length, self.etag)
        end = min(start + length, self.size)
        blocks = range(start // _BLOCK, -(-end // _BLOCK))
        data = b"".join(_BLOCKS.get(self, number) for number in blocks)
        first = start - blocks.start * _BLOCK if blocks else 0
        return data[first : first + max(0, end - start)]


class _Blocks:
    """The blocks of objects that were read last, for all threads; a block is read by one of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[str, str, str, int], Future[bytes]] = OrderedDict()

    def get(self, content: ObjectContent, number: int) -> bytes:
        name = (content.objects.url, content.key, content.etag, number)
        with self._lock:
            block = self._blocks.get(name)
            reads = block is None or (block.done() and block.exception() is not None)
            if reads:
                block = self._blocks[name] = Future()
            self._blocks.move_to_end(name)
            while len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        assert block is not None
        if reads:
            start = number * _BLOCK
            try:
                length = min(_BLOCK, content.size - start)
                block.set_result(content.objects.read(content.key, start, length, content.etag))
            except BaseException as error:
                block.set_exception(error)
                raise
        return block.result()


_BLOCKS = _Blocks()


class _Download:
    """A temporary copy of an object, made by the first reader and shared by all; it ends with the last of them."""

    def __init__(self) -> None:
        self._lock, self._file = threading.Lock(), cast(Any, None)

    def open(self, content: ObjectContent) -> BinaryIO:
        with self._lock:
            if self._file is None:
                file = tempfile.NamedTemporaryFile(prefix="latentmill-object-")  # noqa: SIM115 - kept for later readers
                for start in range(0, content.size, _STEP):
                    file.write(content.read_part(start, min(_STEP, content.size - start)))
                file.flush()
                self._file = file
        return open(self._file.name, "rb")  # noqa: PTH123 - the caller closes it
