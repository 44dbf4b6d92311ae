"""Objects of a build, read whole and hashed in threads, some shards ahead of the checks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from generator.errors import DatasetError, IntegrityError, ObjectMissing
from generator.production.images import decode_image, is_marked_synthetic
from generator.production.provenance.manifest import PREVIEW_KEY
from generator.spec.canonical import canonical_json, digest_of, read_json
from generator.store.base import Store

_THREADS = 4  # hashing releases the interpreter; also the number of shards in memory

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class LoadedObject:
    """An object that was read whole: its size, digest and, where they are needed, bytes; or else the problem: check,
    expected, got."""

    key: str
    data: bytes | None = None
    size: int = 0
    digest: str = ""
    problem: tuple[str, str, str] | None = None

    @property
    def found(self) -> bool:
        return self.problem is None


@dataclass(frozen=True)
class ShardObjects:
    """The objects of one shard; ``receipt`` is ``None`` if the manifest has none for it.

    Bytes of archive and table are held unless both have the digests of the receipt, and nobody asked for them.
    """

    archive: LoadedObject
    table: LoadedObject
    receipt: LoadedObject | None

    @property
    def hashed_only(self) -> bool:
        return self.archive.found and self.archive.data is None


def load_object(store: Store, key: str, limit: int) -> LoadedObject:
    """Read an object of at most ``limit`` bytes. Raises ``StoreError``, but not for a missing object."""
    return _found(key, lambda: _hashed(key, store.get(key, limit)))


def hash_object(store: Store, key: str, limit: int) -> LoadedObject:
    """Like ``load_object``, without its bytes."""

    def read() -> LoadedObject:
        digest, size = store.digest(key, limit)
        return LoadedObject(key, None, size, digest)

    return _found(key, read)


def _hashed(key: str, data: bytes) -> LoadedObject:
    return LoadedObject(key, data, len(data), digest_of(data))


def _found(key: str, read: Callable[[], LoadedObject]) -> LoadedObject:
    try:
        return read()
    except ObjectMissing:
        return LoadedObject(key, problem=("object", "an object", "nothing"))
    except IntegrityError as large:
        return LoadedObject(key, problem=("size", large.expected, large.got))


def load_ahead(load: Callable[[Item], Loaded], items: Iterable[Item]) -> Generator[Loaded | None]:
    """First ``None``, when the first items are being loaded, then ``load`` of each item, in order, in threads.

    At most four results are held beside the one in use.
    """
    source, running = iter(items), deque[Future[Loaded]]()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="verify") as pool:
        try:
            running.extend(pool.submit(load, item) for item in islice(source, _THREADS))
            yield None
            while running:
                loaded = running.popleft().result()
                running.extend(pool.submit(load, item) for item in islice(source, 1))
                yield loaded
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def is_canonical(data: bytes) -> bool:
    """Whether a document is canonical JSON."""
    try:
        return canonical_json(read_json(data, field="", error=DatasetError)) == data
    except (DatasetError, ValueError):  # ValueError: canonical JSON has no NaN
        return False


def is_marked(data: bytes) -> bool:
    """Whether a preview can be decoded and is marked as synthetic."""
    try:
        decode_image(data, field=PREVIEW_KEY)
    except IntegrityError:
        return False
    return is_marked_synthetic(data)
