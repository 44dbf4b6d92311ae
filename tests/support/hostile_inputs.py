"""Shared inputs of the tests of hostile input: broken documents, and a trap that detects unpickling."""

from __future__ import annotations

import gzip
import io
import uuid
import zipfile
from pathlib import Path
from typing import Any

from generator.production.commit import BuildLocation
from tests.support.small_builds import SmallBuild

HUGE_NUMBER = "9" * 5000
DEEP_JSON = b"[" * 200_000
DIGEST = "sha256:" + "0" * 64


class PickleTrap:
    """Unpickling this creates the file ``trace``."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


BROKEN_DOCUMENTS = {
    "nothing": b"",
    "no JSON": b"\x80\x04\x95pickle",
    "a list": b"[]",
    "null": b"null",
    "deep nesting": DEEP_JSON,
    "deep objects": b'{"a":' * 100_000,
    "a number of many digits": b'{"number":' + HUGE_NUMBER.encode() + b"}",
    "a key twice": b'{"kind":1,"kind":2}',
    "not a number": b'{"seed":NaN}',
    "infinity": b'{"seed":Infinity}',
    "an overflow": b'{"seed":1e999}',
    "half a surrogate pair": b'{"name":"\\ud800"}',
    "UTF-16": '{"kind":"x"}'.encode("utf-16"),
    "a nul byte": b'{"kind":"\0"}',
    "a zip bomb": gzip.compress(bytes(1_000_000)),
    "an unknown field": b'{"__proto__":{}}',
}


def committed_build(build: SmallBuild = SmallBuild()) -> BuildLocation:  # noqa: B008
    return build.commit(f"memory://{uuid.uuid4().hex}")[0]


def zip_of(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, b"x")
    return out.getvalue()
