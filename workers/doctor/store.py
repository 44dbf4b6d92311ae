"""Checks of the store: conditional writes, read-after-write consistency, permissions, checksums, versions, clock."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from generator.errors import AccessDenied, AlreadyExists, Changed, LatentmillError, StoreError, StoreUnavailable
from generator.store import open_store
from generator.store.base import Store
from workers.doctor.dialect import CONDITIONS_HINT, RIGHTS_HINT, remedy, replacement_remedy
from workers.doctor.findings import Check, Finding, failed, ok, run_checks, warning
from workers.settings import Settings

_WRITERS = 8  # concurrent writers of one object
_ROUNDS = 3
_SKEW_SECONDS = 60.0  # S3 refuses requests that are 15 minutes off; object times are whole seconds


def examine_store(root: str, settings: Settings, *, short: bool = False) -> Iterator[Finding]:
    """Run the checks of the store at ``root``; with ``short``, only those whose failure could lose data.

    Without a connection, yield one failed finding.
    """
    store = open_store(root, settings.s3)
    probe = _Probe(store.at("doctor"), lambda: replacement_remedy(root, settings))
    try:
        began, ended = probe.reach()
    except LatentmillError as away:
        mend = away.hint if short else remedy(root, settings, away)
        yield failed("store", f"{root}: expected {away.expected}, got {away.got}", mend)
        return
    yield ok("store", f"{root} can be written ({(ended - began).total_seconds() * 1000:.0f} ms)")
    vital: dict[str, Check] = {
        "store conditions": probe.conditions,
        "store atomicity": probe.atomicity,
        "store read-after-write": probe.read_after_write,
    }
    others: dict[str, Check] = {
        "store permissions": probe.permissions,
        "store checksums": lambda: _check_checksums(store, settings),
        "store versions": lambda: _check_versions(store),
        "store clock": lambda: probe.clock(began, ended),
    }
    try:
        yield from run_checks(vital if short else vital | others)
    finally:
        probe.clear()


@dataclass
class _Probe:
    """Checks that write a few small objects below ``store``, the folder of the checks."""

    store: Store
    replacement_remedy: Callable[[], str] = lambda: CONDITIONS_HINT
    _name: str = field(default_factory=lambda: secrets.token_hex(8))
    _keys: set[str] = field(default_factory=set)

    def reach(self) -> tuple[datetime, datetime]:
        """Write the first object; return the times before and after, by our clock."""
        began = datetime.now(UTC)
        self.store.put(self._key("first"), b"first")
        return began, datetime.now(UTC)

    def conditions(self) -> Finding:
        """Check that conditional writes are refused if their condition fails, and accepted if it holds."""
        key = self._key("conditions")
        etag = self.store.put(key, b"one")
        try:
            found, mend = self._violations(key, etag), CONDITIONS_HINT
            if not found and not self._replaces(key, b"three", etag):
                found, mend = "a replacement of the current version was refused", self.replacement_remedy()
            elif not found and self._replaces(key, b"four", etag):
                found = "a write for an outdated version was accepted"
        except StoreUnavailable as unknown:
            if "HTTP 501" not in unknown.got:
                raise
            found, mend = f"the service does not know conditional writes: {unknown.got}", CONDITIONS_HINT
        if found:
            return failed("store conditions", found, mend, loses_data=True)
        return ok("store conditions", "a conditional write succeeds if its condition holds, and only then")

    def _violations(self, key: str, etag: str) -> str:
        """What a write of an existing object did wrong; empty if nothing."""
        try:
            self.store.create(key, b"two")
        except AlreadyExists:
            info = self.store.head(key)
            return "" if info is not None and info.etag == etag else "head shows another etag than the write before it"
        return "a create replaced an object"

    def _replaces(self, key: str, data: bytes, etag: str) -> bool:
        try:
            self.store.replace(key, data, etag)
        except Changed:
            return self.store.get(key) == data  # the answer of the first attempt was lost
        return True

    def atomicity(self) -> Finding:
        """Check that of several concurrent creates of one object at most one succeeds."""
        for number in range(_ROUNDS):
            key = self._key(f"race-{number}")
            with ThreadPoolExecutor(_WRITERS) as pool:
                created = sum(pool.map(self._try_create, [key] * _WRITERS, range(_WRITERS)))
            if created > 1:  # 0 is possible: the response of the successful create was lost
                found = f"{created} of {_WRITERS} writers created one object"
                return failed("store atomicity", found, CONDITIONS_HINT, loses_data=True)
        return ok("store atomicity", f"one of {_WRITERS} concurrent writers creates an object")

    def read_after_write(self) -> Finding:
        """Check that a write is visible at once to reads, range reads, ``head`` and ``list``."""
        key, first, last = self._key("reading"), b"x" * 10, secrets.token_bytes(1000)
        self.store.put(key, first)
        self.store.put(key, last)
        info = self.store.head(key)
        visible = {
            "get": self.store.get(key) == last,
            "a range read": self.store.read(key, 990, 100) == last[990:],
            "head": info is not None and info.size == len(last),
            "list": any(info.key == key and info.size == len(last) for info in self.store.list()),
        }
        stale = [name for name, fresh in visible.items() if not fresh]
        if stale:
            mend = "use a strongly consistent service, without a cache between it and the workers"
            found = f"{', '.join(stale)} did not show the last write"
            return failed("store read-after-write", found, mend, loses_data=True)
        return ok("store read-after-write", "a write is visible at once to get, head and list")

    def permissions(self) -> Finding:
        """Try put, get, list and delete."""
        key, lacking = self._key("permissions"), list[str]()
        steps: dict[str, Callable[[], object]] = {
            "put": lambda: self.store.put(key, b"x"),
            "get": lambda: self.store.get(key),
            "list": lambda: list(self.store.list()),
            "delete": lambda: self.store.delete(key),
        }
        for name, step in steps.items():
            try:
                step()
            except AccessDenied:
                lacking.append(name)
        if not lacking and self.store.head(key) is not None:
            return failed("store permissions", "a deleted object is still there", "turn locking of objects off")
        if lacking:
            locked = "; objects that are locked against deletion cannot be used" if lacking == ["delete"] else ""
            return failed("store permissions", f"no right to {', '.join(lacking)}", RIGHTS_HINT + locked)
        return ok("store permissions", "put, get, list and delete")

    def clock(self, began: datetime, ended: datetime) -> Finding:
        """Compare the store's clock with ours, by the time of the first object."""
        info = self.store.head(self._key("first"))
        if info is None:
            return failed("store clock", "the first object is gone", "nobody else may write below <root>/doctor/")
        skew = (info.modified - began - (ended - began) / 2).total_seconds()
        if abs(skew) > _SKEW_SECONDS:
            return warning("store clock", f"{skew:+.0f} s from ours", "run a time service (NTP) on both machines")
        return ok("store clock", f"{skew:+.1f} s from ours")

    def clear(self) -> None:
        """Remove the objects; a missing right to delete is a finding of ``permissions``."""
        for key in sorted(self._keys):
            try:
                self.store.delete(key)
            except StoreError:
                return

    def _try_create(self, key: str, writer: int) -> bool:
        try:
            self.store.create(key, str(writer).encode())
        except AlreadyExists:
            return False
        return True

    def _key(self, name: str) -> str:
        key = f"{self._name}-{name}"
        self._keys.add(key)
        return key


def _check_checksums(store: Store, settings: Settings) -> Finding:
    rejects_bad_checksum: Callable[[], bool] | None = getattr(store, "rejects_bad_checksum", None)
    if rejects_bad_checksum is None:
        return ok("store checksums", "none: the file system's own")
    mode = f"LATENTMILL_S3_CHECKSUMS={settings.s3_checksums}"
    if settings.s3_checksums == "when_required":
        mend = "set it to when_supported or md5 if the service accepts it; `latentmill verify` finds damage afterwards"
        return warning("store checksums", f"{mode}: damage in transit is not noticed", mend)
    if rejects_bad_checksum():
        return ok("store checksums", f"{mode}: the service rejects data that was damaged in transit")
    mend = "use a service that compares checksums; `latentmill verify` finds damage afterwards"
    return warning("store checksums", f"{mode}, but the service accepts damaged data", mend)


def _check_versions(store: Store) -> Finding:
    keeps_versions: Callable[[], bool] | None = getattr(store, "keeps_versions", None)
    if keeps_versions is None or not keeps_versions():
        return ok("store versions", "a deleted object takes no space")
    mend = "let a lifecycle rule of the bucket expire noncurrent versions, or `retain` and `sweep` free no space"
    return warning("store versions", "deleted objects stay as versions (versioning or object lock)", mend)
