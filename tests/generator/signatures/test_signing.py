"""Signatures of builds and bundles: right ones pass, and everything else is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from generator.datasets.verification import verify_dataset
from generator.errors import BuildConflict, IntegrityError
from generator.models.bundle import bundle_store, pull, push
from generator.models.bundle.load import read_info_bytes
from generator.production.commit import BuildLocation
from generator.signatures import PrivateKey, check_signed, make_key, read_private_key, sign, signature_key
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.small_builds import SmallBuild

MANIFEST = "manifest.json"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[PrivateKey, PrivateKey]:
    for name in ("a", "b"):
        make_key(tmp_path / name)
    return read_private_key(tmp_path / "a"), read_private_key(tmp_path / "b")


@pytest.fixture
def location(tmp_path: Path) -> BuildLocation:
    return SmallBuild().commit(str(tmp_path / "out"))[0]


def sign_build(location: BuildLocation, key: PrivateKey) -> bytes:
    data = location.store.get(MANIFEST)
    sign(location.store, MANIFEST, data, key)
    return data


def test_a_signed_build_is_verified(location: BuildLocation, keys: tuple[PrivateKey, PrivateKey]) -> None:
    ours, other = keys
    data = sign_build(location, ours)
    assert check_signed(location.store, MANIFEST, data, [other.public, ours.public]) == ours.public
    assert verify_dataset(location.url, deep=True, trusted=[ours.public]).ok
    assert verify_dataset(location.url, deep=True).ok  # a signature is no unknown object
    before = {info.key: location.store.get(info.key) for info in location.store.list()}
    sign_build(location, ours)
    assert {info.key: location.store.get(info.key) for info in location.store.list()} == before
    sign_build(location, other)
    assert check_signed(location.store, MANIFEST, data, [other.public]) == other.public


def test_what_is_not_signed_is_refused(location: BuildLocation, keys: tuple[PrivateKey, PrivateKey]) -> None:
    ours, other = keys
    sign_build(location, other)
    with pytest.raises(IntegrityError) as caught:
        verify_dataset(location.url, deep=True, trusted=[ours.public])
    assert caught.value.field == f"{location.url}/manifest.json"
    assert caught.value.expected == f"a signature by {ours.public.id}"
    assert caught.value.got == "none"
    with pytest.raises(IntegrityError, match="of which none is known"):
        verify_dataset(location.url, deep=True, trusted=[])


def test_an_altered_manifest_is_refused_and_an_altered_file_found(
    location: BuildLocation, keys: tuple[PrivateKey, PrivateKey]
) -> None:
    ours, _ = keys
    data = sign_build(location, ours)
    shard = json.loads(data)["shards"][0]["shard"]["key"]
    intact = location.store.get(shard)
    location.store.put(shard, b"\0" * len(intact))
    assert {problem.where for problem in verify_dataset(location.url, deep=True, trusted=[ours.public]).problems} >= {
        shard
    }
    location.store.put(shard, intact)
    location.store.put(MANIFEST, data.replace(b'"refused":', b'"refused": '))
    with pytest.raises(IntegrityError, match=r"\.json\.digest: expected sha256:\w+, got sha256:\w+\. manifest\.json"):
        verify_dataset(location.url, deep=True, trusted=[ours.public])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"signature": "A" * 86 + "=="}, "signature"),
        ({"signature": "A" * 20}, "signature"),
        ({"algorithm": "rsa"}, "algorithm"),
        ({"subject": "bundle.json"}, "subject"),
        ({"key": "sha256:" + "0" * 64}, "key"),
        ({"digest": "sha256:" + "0" * 64}, "digest"),
        ({"more": 1}, "more"),
    ],
)
def test_an_altered_signature_is_refused(
    location: BuildLocation, keys: tuple[PrivateKey, PrivateKey], change: dict[str, Any], field: str
) -> None:
    ours, other = keys
    data, name = sign_build(location, ours), signature_key(ours.public)
    location.store.put(name, json.dumps(json.loads(location.store.get(name)) | change).encode())
    with pytest.raises(IntegrityError) as caught:
        check_signed(location.store, MANIFEST, data, [ours.public])
    assert caught.value.field == f"{location.url}/{name}.{field}"
    sign_build(location, other)  # a damaged signature does not hide a good one
    assert check_signed(location.store, MANIFEST, data, [ours.public, other.public]) == other.public
    with pytest.raises(BuildConflict):
        sign_build(location, ours)


@pytest.mark.parametrize("data", [b"{", b"x" * 70_000, b'{"kind": NaN}'])
def test_a_signature_that_is_no_document_is_refused(
    location: BuildLocation, keys: tuple[PrivateKey, PrivateKey], data: bytes
) -> None:
    ours, _ = keys
    location.store.put(signature_key(ours.public), data)
    with pytest.raises(IntegrityError):
        check_signed(location.store, MANIFEST, location.store.get(MANIFEST), [ours.public])


def test_a_signature_of_another_build_does_not_pass(
    location: BuildLocation, keys: tuple[PrivateKey, PrivateKey], tmp_path: Path
) -> None:
    ours, _ = keys
    another = SmallBuild(seed=1).commit(str(tmp_path / "another"))[0]
    sign_build(another, ours)
    name = signature_key(ours.public)
    location.store.put(name, another.store.get(name))
    with pytest.raises(IntegrityError, match=r"\.json\.digest: "):
        verify_dataset(location.url, deep=True, trusted=[ours.public])


def test_the_signature_of_a_bundle_goes_with_it(keys: tuple[PrivateKey, PrivateKey], tmp_path: Path) -> None:
    ours, _ = keys
    bundle, root = open_store(str(tiny_bundle(tmp_path / "bundle"))), open_store(str(tmp_path / "root"))
    data = read_info_bytes(bundle)
    digest = push(bundle, root)
    with pytest.raises(IntegrityError, match=r"bundle\.json: expected a signature by .*, got none"):
        check_signed(bundle_store(root, digest), "bundle.json", data, [ours.public])
    sign(bundle, "bundle.json", data, ours)
    assert push(bundle, root) == digest
    check_signed(bundle_store(root, digest), "bundle.json", data, [ours.public])
    pull(root, digest, tmp_path / "pulled")
    check_signed(open_store(str(tmp_path / "pulled")), "bundle.json", data, [ours.public])
    assert push(open_store(str(tmp_path / "pulled")), root) == digest
