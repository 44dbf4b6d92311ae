"""Malicious bundles: each is refused with a ``BundleError``."""

from __future__ import annotations

import json
import pickle
import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generator.errors import (
    BundleError,
)
from generator.models.bundle import load_bundle, load_codes, load_encoder_weights, read_info
from generator.production.decoding import ResidentDecoder
from generator.spec.canonical import canonical_json, digest_of
from generator.store import Store, open_store
from tests.support.bundles import tiny_bundle
from tests.support.hostile_inputs import BROKEN_DOCUMENTS, PickleTrap, zip_of


def _tensors(header: Any, data: bytes = b"", *, size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def _entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


FILES: dict[str, Callable[[Path], bytes]] = {
    "a pickle": lambda home: pickle.dumps(PickleTrap(home / "sprung")),
    "a torch archive": lambda home: zip_of("archive/data.pkl"),
    "a zip that climbs": lambda home: zip_of("../../escaped"),
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
    """The bundle with one file replaced and its document adapted, so that the digests do not reveal the change."""
    target = home / "bundle"
    target.mkdir()
    for file in intact.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    (target / name).write_bytes(data)
    document = json.loads((target / "bundle.json").read_bytes())
    document["files"][name] = {"digest": digest_of(data), "size": len(data)}
    (target / "bundle.json").write_bytes(canonical_json(document))
    return open_store(str(target))


def _load_all(store: Store) -> None:
    """Load every part of a bundle."""
    bundle = load_bundle(store)
    load_codes(store, bundle.info)
    load_encoder_weights(store, bundle.info)
    ResidentDecoder(bundle, batch=4, dtype="float32", device="cpu")


@pytest.mark.parametrize("make", FILES.values(), ids=FILES.keys())
@pytest.mark.parametrize("name", ["decoder.safetensors", "latents.safetensors", "codes.safetensors"])
def test_files_of_a_bundle(intact: Path, tmp_path: Path, name: str, make: Callable[[Path], bytes]) -> None:
    with pytest.raises(BundleError) as refused:
        _load_all(altered(intact, tmp_path, name, make(tmp_path)))
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
        _load_all(store)


@pytest.mark.parametrize("data", BROKEN_DOCUMENTS.values(), ids=BROKEN_DOCUMENTS.keys())
def test_a_broken_document_of_a_bundle(data: bytes) -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    store.put("bundle.json", data)
    with pytest.raises(BundleError):
        read_info(store)
