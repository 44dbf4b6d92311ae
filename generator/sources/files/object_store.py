"""Files of a source in an S3-compatible object store."""

from __future__ import annotations

import io
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast, final

from generator.errors import SourceError
from generator.sources.files.content import MAX_MEMBER_BYTES, Content
from generator.sources.files.directory import HIDDEN, JUNK, has_wildcards, matches_pattern, pattern_root
from generator.sources.files.file_set import FileSet, SourceFile, in_order
from generator.sources.files.junk import is_hidden, is_junk
from generator.store.s3_settings import S3Settings

if TYPE_CHECKING:
    from generator.store.s3_objects import S3Objects

_STEP = 2**24  # bytes of one request
_SMALL = 2**26  # larger objects are read into a temporary file


def is_object_url(location: str) -> bool:
    """Whether a location is in an object store."""
    return location.startswith("s3://")


def list_objects(url: str, settings: S3Settings | None) -> FileSet:
    """The visible objects below ``url``: an object, a prefix, or a pattern. Raises ``SourceError``, ``StoreError``."""
    from generator.store.s3_objects import S3Objects, split_url  # boto3 takes half a second to import

    bucket, key = split_url(url)
    objects = S3Objects(bucket, settings or S3Settings())
    pattern = key if has_wildcards(key) else None
    root = pattern_root(key) if pattern else key.rstrip("/")
    name = (key.rstrip("/").rpartition("/")[2]) or bucket
    listed = [info for info in objects.list(root) if not info.key.endswith("/")]
    if pattern is None:
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

    objects: S3Objects
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
        return self.objects.read(self.key, start, length, self.etag)


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
