"""Inputs that somebody made to do harm: each is refused with a typed error that says what was expected.

One table for each thing that is read from outside. A case is a name and what is given; nothing of it may climb out of
its place, be run, take unbounded memory or time, or end in any other exception than ours.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kombu.exceptions import ContentDisallowed
from kombu.serialization import loads

from generator.bundle import load_bundle, load_codes, load_encoder_weights, read_info
from generator.canonical import canonical_json, digest_of
from generator.datasets import open_dataset
from generator.decoding import ResidentDecoder
from generator.drafts import read_draft, resolve
from generator.epochs import current_epoch
from generator.errors import (
    BuildError,
    BundleError,
    InputError,
    IntegrityError,
    LatentmillError,
    SpecError,
)
from generator.finishing import finish
from generator.images import decode_image
from generator.provenance.manifest import Manifest, StoredFile
from generator.provenance.samples import read_rows
from generator.publish import BuildPlace, found_place, read_receipt
from generator.shards import read_samples
from generator.store import Store, open_store
from generator.verification import verify_dataset
from tests.builds import SmallBuild
from tests.bundles import tiny_bundle
from workers.app import make_app
from workers.markers import read_marker
from workers.settings import Settings

HUGE = "9" * 5000
DEEP = b"[" * 200_000
DIGEST = "sha256:" + "0" * 64


class Trap:
    """Whoever unpickles this leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.fixture(autouse=True)
def nothing_is_run_or_written_outside(tmp_path: Path) -> Iterator[None]:
    yield
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path.parent / "escaped").exists()


# --- Specs -----------------------------------------------------------------------------------------------------------

SPEC = {"bundle": "bundle", "destination": "out", "name": "tiny", "count": 10}
SPECS: dict[str, str | bytes] = {
    "a python object": "!!python/object/apply:os.system ['touch sprung']",
    "a python name": "name: !!python/name:os.system",
    "a billion laughs": "a: &a [x, x]\nb: &b [*a, *a]\nname: *b",
    "a merge key": "<<: {name: tiny}\ncount: 1",
    "deep nesting": "draw: " + "[" * 20_000,
    "a number of base sixty": "count: " + "1:" * 30_000 + "1",
    "a huge number": json.dumps(SPEC).replace("10", HUGE),
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


@pytest.mark.parametrize("text", SPECS.values(), ids=SPECS.keys())
def test_specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_bundle(tmp_path / "bundle")
    path = tmp_path / "spec.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as refused:
        resolve(read_draft(path), open_store(str(tmp_path / "root")))
    assert len(str(refused.value)) < 2000
    assert "secret" not in str(refused.value)


# --- Keys ------------------------------------------------------------------------------------------------------------

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


# --- Documents: recipe, environment, receipt, manifest, marker, pointer ----------------------------------------------

BROKEN = {
    "nothing": b"",
    "no JSON": b"\x80\x04\x95pickle",
    "a list": b"[]",
    "null": b"null",
    "deep nesting": DEEP,
    "deep objects": b'{"a":' * 100_000,
    "a number of many digits": b'{"number":' + HUGE.encode() + b"}",
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
READERS: dict[str, tuple[str, Callable[[BuildPlace], object]]] = {
    "recipe": ("recipe.json", lambda place: found_place(place.store, "small")),
    "environment": ("environment.json", lambda place: current_epoch(place.store)),
    "opening": ("epochs/001.json", lambda place: _begin_next(place)),
    "receipt": ("receipts/000001.json", lambda place: read_receipt(place, 1)),
    "manifest": ("manifest.json", lambda place: open_dataset(place.url)),
    "pointer": ("latest.json", lambda place: open_dataset(place.url.partition("/builds/")[0])),
    "marker": ("open/job-1.json", lambda place: read_marker(place.store, "job-1")),
}


def _begin_next(place: BuildPlace) -> None:
    from generator.epochs import fix_environment
    from tests.builds import ENVIRONMENT

    place.store.delete("environments/001.json")
    fix_environment(place.store, ENVIRONMENT)


def built(build: SmallBuild = SmallBuild()) -> BuildPlace:  # noqa: B008
    return build.commit(f"memory://{uuid.uuid4().hex}")[0]


@pytest.mark.parametrize("document", READERS.keys())
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_documents(document: str, data: bytes) -> None:
    place = built()
    key, read = READERS[document]
    store = open_store(place.url.partition("/builds/")[0]) if document == "pointer" else place.store
    store.put(key, data)
    with pytest.raises((InputError, BuildError)) as refused:
        read(place)
    assert len(str(refused.value)) < 2000
    assert verify_dataset(place.url).problems or document in ("pointer",)


@pytest.mark.parametrize("document", READERS.keys())
def test_documents_of_many_bytes_are_refused_unread(document: str, tmp_path: Path) -> None:
    place = SmallBuild().commit(str(tmp_path))[0]
    key, read = READERS[document]
    folder = tmp_path / "small" if document == "pointer" else Path(place.url.removeprefix("file://"))
    (folder / key).parent.mkdir(exist_ok=True)
    with (folder / key).open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no room
    with pytest.raises(LatentmillError, match=str(2**40)):
        read(place)


def rewritten(place: BuildPlace, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(place.store.get("manifest.json"))
    change(document)
    place.store.put("manifest.json", json.dumps(document).encode())


def _shard(document: dict[str, Any], **changes: Any) -> None:
    document["shards"][0]["shard"] |= changes


MANIFESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a shard outside of the build": lambda doc: _shard(doc, key="../../../escaped"),
    "an absolute shard": lambda doc: _shard(doc, key="/etc/passwd"),
    "a shard of many bytes": lambda doc: _shard(doc, size=10**30),
    "a shard of negative bytes": lambda doc: _shard(doc, size=-1),
    "another shard's bytes": lambda doc: _shard(doc, key="shards/small-000001.tar"),
    "a digest that is none": lambda doc: _shard(doc, digest="sha256:" + "Z" * 64),
    "a digest of another kind": lambda doc: _shard(doc, digest="md5:" + "0" * 32),
    "more samples than there are": lambda doc: doc["shards"][0].update(samples=10**6),
    "samples beyond any integer": lambda doc: doc["shards"][0].update(samples=10**40),
    "a shard number beyond any": lambda doc: doc["shards"][0].update(number=10**40),
    "more samples in total": lambda doc: doc.update(samples=10**9),
    "no shards": lambda doc: doc.update(shards=[]),
    "a class with a control letter": lambda doc: doc.update(classes=["a\x1b[2J", "b"]),
    "an environment under another digest": lambda doc: doc.update(environments={DIGEST: {}}),
    "an image format that runs": lambda doc: doc["image"].update(format="svg"),
    "another kind of document": lambda doc: doc.update(kind="latentmill.bundle"),
    "a version of tomorrow": lambda doc: doc.update(manifest_version=2),
}


@pytest.mark.parametrize("name", MANIFESTS.keys())
def test_manifests(name: str) -> None:
    place = built()
    rewritten(place, MANIFESTS[name])
    assert verify_dataset(place.url).problems
    if "environment" not in name:  # which no reader looks at
        with pytest.raises(LatentmillError):
            list(open_dataset(place.url))


RECEIPTS: dict[str, dict[str, Any]] = {
    "files outside of the build": {"shard": {"key": "../../x", "digest": DIGEST, "size": 0}},
    "another shard's archive": {"shard": {"key": "shards/small-000000.tar", "digest": DIGEST, "size": 10240}},
    "a table in place of an archive": {"shard": {"key": "samples/small-000001.parquet", "digest": DIGEST, "size": 1}},
    "another number": {"number": 2},
    "another recipe": {"recipe": DIGEST},
    "an environment that never was": {"environment": DIGEST},
    "more samples than planned": {"samples": 6, "counts": [6, 0]},
    "counts of no class": {"counts": []},
    "counts beyond any integer": {"counts": [10**40, 0]},
    "a boolean count": {"samples": True},
    "a float number": {"number": 1.5},
    "refused below zero": {"refused": -1},
}


@pytest.mark.parametrize("change", RECEIPTS.values(), ids=RECEIPTS.keys())
def test_receipts(change: dict[str, Any]) -> None:
    """Whoever commits looks at every receipt."""
    place = SmallBuild().begin(f"memory://{uuid.uuid4().hex}")
    key = "receipts/000001.json"
    place.store.put(key, canonical_json(json.loads(place.store.get(key)) | change))
    with pytest.raises(LatentmillError):
        finish(place, None)  # type: ignore[arg-type]
    assert place.store.head("manifest.json") is None


MARKER = {
    "job": "job-1",
    "destination": "/x",
    "name": "tiny",
    "tenant": "default",
    "recipe": DIGEST,
    "build_id": "0" * 20,
    "shards": 1,
    "samples": 1,
    "submitted": 0.0,
}
MARKERS: dict[str, dict[str, Any]] = {
    "a job that climbs": {"job": "../x"},
    "a name that climbs": {"name": ".."},
    "a build that climbs": {"build_id": "../../../../../../x"},
    "an intent of one's own": {"intent": "deleted"},
    "more shards than any build": {"shards": 10**12},
    "more samples than any build": {"samples": 10**15},
    "a shard given up beyond any": {"dead": [{"shard": 10**9, "faults": 1, "error": ""}]},
    "a long error": {"error": "x" * 100_000},
    "a destination of many letters": {"destination": "/" + "x" * 10_000},
    "a time before all": {"submitted": -1},
}


@pytest.mark.parametrize("change", MARKERS.values(), ids=MARKERS.keys())
def test_markers(change: dict[str, Any]) -> None:
    root = open_store(f"memory://{uuid.uuid4().hex}")
    root.put("open/job-1.json", canonical_json(MARKER))
    assert read_marker(root, "job-1") is not None
    root.put("open/job-1.json", canonical_json(MARKER | change))
    with pytest.raises(SpecError):
        read_marker(root, "job-1")


# --- Bundles ---------------------------------------------------------------------------------------------------------


def _tensors(header: Any, data: bytes = b"", *, size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def _entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _zip_of(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, b"x")
    return out.getvalue()


FILES: dict[str, Callable[[Path], bytes]] = {
    "a pickle": lambda home: pickle.dumps(Trap(home / "sprung")),
    "a torch archive": lambda home: _zip_of("archive/data.pkl"),
    "a zip that climbs": lambda home: _zip_of("../../escaped"),
    "nothing": lambda home: b"",
    "half a length": lambda home: b"\x10\0\0",
    "a header longer than the file": lambda home: _tensors({}, size=2**20),
    "a header of 2**63 bytes": lambda home: _tensors({}, size=2**63),
    "a header of 2**64 - 1 bytes": lambda home: _tensors({}, size=2**64 - 1),
    "a header that is no JSON": lambda home: _tensors(b"{" * 64),
    "a deep header": lambda home: _tensors(b'{"a":' * 50_000),
    "overlapping tensors": lambda home: _tensors({"a": _entry([2], 0, 8), "b": _entry([2], 4, 12)}, bytes(12)),
    "offsets beyond the file": lambda home: _tensors({"a": _entry([2**40], 0, 2**42)}, bytes(8)),
    "offsets that run backwards": lambda home: _tensors({"a": _entry([2], 8, 0)}, bytes(8)),
    "a shape that overflows": lambda home: _tensors({"a": _entry([2**33, 2**33], 0, 8)}, bytes(8)),
    "a negative shape": lambda home: _tensors({"a": _entry([-2], 0, 8)}, bytes(8)),
    "a shape that lies": lambda home: _tensors({"a": _entry([3], 0, 8)}, bytes(8)),
    "an unknown type": lambda home: _tensors({"a": _entry([2], 0, 8, "OBJECT")}, bytes(8)),
    "a type that numpy lacks": lambda home: _tensors({"a": _entry([8], 0, 8, "F8_E4M3")}, bytes(8)),
    "a hole before the data": lambda home: _tensors({"a": _entry([2], 8, 16)}, bytes(16)),
    "a tail behind the data": lambda home: _tensors({"a": _entry([2], 0, 8)}, bytes(64)),
    "a tensor of another name": lambda home: _tensors({"../a": _entry([2], 0, 8)}, bytes(8)),
    "a tensor that is no number": lambda home: _tensors({"a": _entry([1], 0, 4)}, np.float32("nan").tobytes()),
    "an infinite tensor": lambda home: _tensors({"a": _entry([1], 0, 4)}, np.float32("inf").tobytes()),
    "no tensors at all": lambda home: _tensors({}),
}


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def altered(intact: Path, home: Path, name: str, data: bytes) -> Store:
    """The bundle with another file, its document made to agree: digests alone would tell."""
    target = home / "bundle"
    target.mkdir()
    for file in intact.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    (target / name).write_bytes(data)
    document = json.loads((target / "bundle.json").read_bytes())
    document["files"][name] = {"digest": digest_of(data), "size": len(data)}
    (target / "bundle.json").write_bytes(canonical_json(document))
    return open_store(str(target))


def _used(store: Store) -> None:
    """Everything that anybody reads of a bundle."""
    bundle = load_bundle(store)
    load_codes(store, bundle.info)
    load_encoder_weights(store, bundle.info)
    ResidentDecoder(bundle, batch=4, dtype="float32", device="cpu")


@pytest.mark.parametrize("make", FILES.values(), ids=FILES.keys())
@pytest.mark.parametrize("name", ["decoder.safetensors", "latents.safetensors", "codes.safetensors"])
def test_files_of_a_bundle(intact: Path, tmp_path: Path, name: str, make: Callable[[Path], bytes]) -> None:
    with pytest.raises(BundleError) as refused:
        _used(altered(intact, tmp_path, name, make(tmp_path)))
    assert len(str(refused.value)) < 3000


INFOS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a file that climbs": lambda doc: doc["files"].update({"../escaped": doc["files"]["decoder.safetensors"]}),
    "a size beyond any": lambda doc: doc["files"]["decoder.safetensors"].update(size=10**40),
    "a size below zero": lambda doc: doc["files"]["decoder.safetensors"].update(size=-1),
    "a digest that is none": lambda doc: doc["files"]["decoder.safetensors"].update(digest="sha256:x"),
    "a network beyond any memory": lambda doc: doc["autoencoder"].update(width=10**9),
    "a width that is no number": lambda doc: doc["autoencoder"].update(width="8; import os"),
    "latents beyond any memory": lambda doc: doc["latents"].update(clusters=[10**9] * 3),
    "latents that count below zero": lambda doc: doc["latents"].update(clusters=[-1, 2, 2]),
    "latents of another family": lambda doc: doc["latents"].update(family="__import__"),
    "classes that are alike": lambda doc: doc.update(classes=["cat", "cat", "owl"]),
    "a class with an escape sequence": lambda doc: doc.update(classes=["\x1b]0;x\x07", "dog", "owl"]),
    "an image beyond any memory": lambda doc: doc["image"].update(height=10**6, width=10**6),
}


@pytest.mark.parametrize("change", INFOS.values(), ids=INFOS.keys())
def test_documents_of_a_bundle(intact: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((intact / "bundle.json").read_bytes())
    change(document)
    store = altered(intact, tmp_path, "decoder.safetensors", (intact / "decoder.safetensors").read_bytes())
    store.put("bundle.json", canonical_json(document))
    with pytest.raises(BundleError):
        _used(store)


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_document_of_a_bundle(data: bytes) -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    store.put("bundle.json", data)
    with pytest.raises(BundleError):
        read_info(store)


# --- Archives, tables, images ----------------------------------------------------------------------------------------


def _tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, **facts: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info


def _size_that_lies(size: bytes) -> bytes:
    """A header with another size, and a checksum that fits."""
    data = bytearray(_tar((_member("000000000.png"), b"x")))
    data[124:136] = size
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def _sparse() -> bytes:
    """One byte of data that unfolds to a terabyte of zeros (GNU sparse format 1.0)."""
    facts = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.realsize": str(2**40),
        "GNU.sparse.name": "0.png",
    }
    body = b"1\n0\n1\n".ljust(512, b"\0") + b"x"
    return _tar((_member("0.png", pax_headers=facts), body), form=tarfile.PAX_FORMAT)


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "nothing but zeros in between": lambda: bytes(1024) + b"x",
    "a name that climbs": lambda: _tar((_member("../../escaped.png"), b"x")),
    "an absolute name": lambda: _tar((_member("/escaped.png"), b"x")),
    "a symbolic link": lambda: _tar((_member("0.png", tarfile.SYMTYPE, linkname="/etc/passwd"), b"")),
    "a hard link": lambda: _tar((_member("0.png"), b"x"), (_member("1.png", tarfile.LNKTYPE, linkname="0.png"), b"")),
    "a device": lambda: _tar((_member("0.png", tarfile.CHRTYPE), b"")),
    "a directory": lambda: _tar((_member("0.png", tarfile.DIRTYPE), b"")),
    "a sparse file of a terabyte": _sparse,
    "a size beyond the archive": lambda: _size_that_lies(b"77777777777\0"),
    "a size below zero": lambda: _size_that_lies(b"\xff" * 12),
    "a file twice in a sample": lambda: _tar((_member("0.png"), b"x"), (_member("0.png"), b"y")),
    "a long name by extension": lambda: _tar((_member("0" * 300 + ".png"), b"x"), form=tarfile.GNU_FORMAT),
    "a header of one's own": lambda: _tar(
        (_member("0.png", pax_headers={"path": "../x"}), b"x"), form=tarfile.PAX_FORMAT
    ),
    "a compressed archive": lambda: gzip.compress(_tar((_member("0.png"), b"x"))),
    "a zip archive": lambda: _zip_of("0.png"),
    "a cut archive": lambda: _tar((_member("0.png"), b"x" * 2000))[:1500],
    "a name that is no text": lambda: _tar((_member("0.png"), b"x")).replace(b"0.png", b"\xff.png", 1),
}


@pytest.mark.parametrize("make", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_archives(make: Callable[[], bytes]) -> None:
    """Each planted in a build with all digests made to fit: ``verify`` tells of it, a reader refuses it."""
    data, place = make(), built()
    key = "shards/small-000000.tar"
    manifest = Manifest.model_validate_json(place.store.get("manifest.json"))
    file = StoredFile(key=key, digest=digest_of(data), size=len(data))
    first = manifest.shards[0].model_copy(update={"shard": file})
    place.store.put(key, data)
    place.store.put("manifest.json", manifest.model_copy(update={"shards": (first, *manifest.shards[1:])}).canonical())
    assert key in {problem.where for problem in verify_dataset(place.url).problems}
    with pytest.raises(LatentmillError):
        list(open_dataset(place.url))
    with pytest.raises(IntegrityError):
        list(read_samples(data, field=key))


def _table(rows: int, **columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns or {"index": pa.array(np.zeros(rows, dtype=np.int64))}), out, compression="zstd")
    return out.getvalue()


TABLES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no table": lambda: b"PAR1" + b"x" * 100 + b"PAR1",
    "a footer longer than the file": lambda: b"PAR1" + struct.pack("<I", 2**31 - 1) + b"PAR1",
    "a cut table": lambda: _table(100)[:-20],
    "a million rows in a few bytes": lambda: _table(1_000_000),
    "one text of 16 megabytes in a few bytes": lambda: _table(1, index=pa.array(["x" * 2**24])),
    "a pickle": lambda: pickle.dumps([1, 2]),
}


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES.keys())
def test_tables(make: Callable[[], bytes]) -> None:
    with pytest.raises(IntegrityError):
        read_rows(make(), field="table")


def _png(width: int, height: int, *more: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*each) for each in more) + body


IMAGES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "an image of 40 gigabytes in a few bytes": lambda: _png(200_000, 200_000),
    "an image of 100 megabytes in a few bytes": lambda: _png(10_000, 10_000),
    "no width": lambda: _png(0, 8),
    "a width of 2**31": lambda: _png(2**31, 1),
    "a text of many megabytes": lambda: _png(8, 8, (b"zTXt", b"k\0\0" + zlib.compress(bytes(10**8), 9))),
    "another format": lambda: b"GIF89a" + bytes(100),
    "a vector image": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "a PostScript program": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
    "half a JPEG": lambda: b"\xff\xd8\xff\xe0\x00\x10JFIF",
}


@pytest.mark.parametrize("make", IMAGES.values(), ids=IMAGES.keys())
def test_images(make: Callable[[], bytes]) -> None:
    with pytest.raises(IntegrityError):
        decode_image(make(), field="image")


# --- Messages --------------------------------------------------------------------------------------------------------

MESSAGES = {
    "pickle": lambda home: (pickle.dumps(Trap(home / "sprung")), "application/x-python-serialize", "binary"),
    "yaml": lambda home: (b"!!python/object/apply:os.system ['true']", "application/x-yaml", "utf-8"),
    "an unknown type": lambda home: (b"x", "application/octet-stream", "binary"),
}


@pytest.mark.parametrize("make", MESSAGES.values(), ids=MESSAGES.keys())
def test_messages(tmp_path: Path, make: Callable[[Path], tuple[bytes, str, str]]) -> None:
    app = make_app(Settings(redis_url="redis://127.0.0.1:9/0"))  # type: ignore[arg-type]
    with pytest.raises(ContentDisallowed):
        loads(*make(tmp_path), accept=app.conf.accept_content)
