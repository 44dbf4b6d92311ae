"""Malicious specs, keys and messages: each is refused with a typed error.

No case may escape its directory, be run, take unbounded memory or time, or raise any other exception than ours. The
other ``test_hostile_...`` files cover documents, bundles and files.
"""

from __future__ import annotations

import json
import pickle
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from kombu.exceptions import ContentDisallowed
from kombu.serialization import loads

from generator.drafts import read_draft, resolve_draft
from generator.errors import (
    InputError,
    SpecError,
)
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.hostile_inputs import HUGE_NUMBER, PickleTrap
from workers.broker.app import make_app
from workers.settings import Settings

SPEC = {"bundle": "bundle", "destination": "out", "name": "tiny", "count": 10}
SPECS: dict[str, str | bytes] = {
    "a python object": "!!python/object/apply:os.system ['touch sprung']",
    "a python name": "name: !!python/name:os.system",
    "a billion laughs": "a: &a [x, x]\nb: &b [*a, *a]\nname: *b",
    "a merge key": "<<: {name: tiny}\ncount: 1",
    "deep nesting": "draw: " + "[" * 20_000,
    "a number of base sixty": "count: " + "1:" * 30_000 + "1",
    "a huge number": json.dumps(SPEC).replace("10", HUGE_NUMBER),
    "an infinite temperature": json.dumps(SPEC | {"temperature": 1}).replace(": 1}", ": .inf}"),
    "a temperature that is no number": json.dumps(SPEC | {"temperature": 1}).replace(": 1}", ": .nan}"),
    "a count that is a boolean": json.dumps(SPEC | {"count": True}),
    "a negative count": json.dumps(SPEC | {"count": -1}),
    "a name that climbs": json.dumps(SPEC | {"name": "../escaped"}),
    "a name with a slash": json.dumps(SPEC | {"name": "a/b"}),
    "a name with a nul byte": json.dumps(SPEC | {"name": "a\0b"}),
    "a name in full-width letters": json.dumps(SPEC | {"name": "\uff54iny"}),
    "a name with a right-to-left mark": json.dumps(SPEC | {"name": "ti\u202eny"}),
    "a name with a line end": json.dumps(SPEC | {"name": "tiny\n"}),
    "a tenant that climbs": json.dumps(SPEC | {"tenant": ".."}),
    "a bundle with a nul byte": json.dumps(SPEC | {"bundle": "a\0b"}),
    "a bundle on another host": json.dumps(SPEC | {"bundle": "http://169.254.169.254/latest"}),
    "a bundle digest that climbs": json.dumps(SPEC | {"bundle": "sha256:../../escaped"}),
    "a destination with another scheme": json.dumps(SPEC | {"destination": "ftp://host/x"}),
    "a destination with credentials": json.dumps(SPEC | {"destination": "s3://key:secret@bucket/x"}),
    "a destination that climbs in a bucket": json.dumps(SPEC | {"destination": "s3://bucket/a/../../b"}),
    "a key twice": "name: a\nname: b",
    "bytes that are no text": b"\xff\xfe\x00\x01",
    "a document of many megabytes": b"a" * (2 * 1024 * 1024),
    "an unknown field": json.dumps(SPEC | {"execute": "touch sprung"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("text", SPECS.values(), ids=SPECS.keys())
def test_specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_bundle(tmp_path / "bundle")
    path = tmp_path / "spec.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as refused:
        resolve_draft(read_draft(path), open_store(str(tmp_path / "root")))
    assert len(str(refused.value)) < 2000
    assert "secret" not in str(refused.value)


def test_a_file_without_an_end_is_not_read_to_it() -> None:
    with pytest.raises(SpecError, match="at most 1048576 bytes, got more in /dev/zero"):
        read_draft("/dev/zero")


KEYS = {
    "parent": "../escaped",
    "parent inside": "a/../../escaped",
    "absolute": "/escaped",
    "backslashes": "..\\escaped",
    "nul byte": "a\0b",
    "line end": "a\n",
    "hidden": ".tmp-0",
    "a temporary name inside": "a/.lock",
    "empty": "",
    "an empty segment": "a//b",
    "percent-encoded parent": "%2e%2e/escaped",
    "a dot that looks like one": "\u2024\u2024/escaped",
    "right-to-left": "a\u202eb",
    "too long": "a" * 10_000,
    "too long a segment": "a" * 256,
    "a tilde": "~root",
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
def test_keys(tmp_path: Path, kind: str, key: str) -> None:
    urls = {"local": str(tmp_path / "store"), "memory": f"memory://{uuid.uuid4().hex}", "s3": "s3://bucket/prefix"}
    store = open_store(urls[kind])
    steps: list[Callable[[], object]] = [
        lambda: store.get(key),
        lambda: store.create(key, b""),
        lambda: store.put(key, b""),
        lambda: store.delete(key),
        lambda: store.at(key) and store.at(key).get("x"),
    ]
    for step in steps:
        with pytest.raises(SpecError):
            step()


MESSAGES = {
    "pickle": lambda home: (pickle.dumps(PickleTrap(home / "sprung")), "application/x-python-serialize", "binary"),
    "yaml": lambda home: (b"!!python/object/apply:os.system ['true']", "application/x-yaml", "utf-8"),
    "an unknown type": lambda home: (b"x", "application/octet-stream", "binary"),
}


@pytest.mark.parametrize("make", MESSAGES.values(), ids=MESSAGES.keys())
def test_messages(tmp_path: Path, make: Callable[[Path], tuple[bytes, str, str]]) -> None:
    app = make_app(Settings(redis_url="redis://127.0.0.1:9/0"), "latentmill:x:")  # type: ignore[arg-type]
    with pytest.raises(ContentDisallowed):
        loads(*make(tmp_path), accept=app.conf.accept_content)
