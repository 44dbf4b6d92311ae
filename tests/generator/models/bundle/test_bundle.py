"""Bundles: content-addressed, fully verified, never unpickled, and copied between store roots unchanged."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from generator.errors import BundleError, BundleMissing, InvalidOutput
from generator.models.bundle import bundle_store, load_bundle, pull, push, read_info, save_bundle
from generator.models.latents.fitting.code_map import fit_code_map
from generator.production.decoding import ResidentDecoder
from generator.spec.canonical import canonical_json, digest_of
from generator.spec.seeding import noise
from generator.store import open_store
from generator.store.base import MAX_OBJECT_BYTES, ObjectInfo, Store
from tests.support.bundles import tiny_bundle, tiny_contents


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "bundle")


def rewritten(bundle: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The bundle with a changed ``bundle.json`` whose file digests match the files."""
    document = json.loads((bundle / "bundle.json").read_bytes())
    for name in document["files"]:
        data = (bundle / name).read_bytes()
        document["files"][name] = {"digest": digest_of(data), "size": len(data)}
    change(document)
    (bundle / "bundle.json").write_bytes(canonical_json(document))
    return bundle


def nothing(document: dict[str, Any]) -> None:
    """Only the digests change."""


def refusal(bundle: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        load_bundle(open_store(str(bundle)))
    assert caught.value.exit_code == 2
    return caught.value


def test_equal_contents_have_equal_digests(tmp_path: Path) -> None:
    assert save_bundle(tmp_path / "a", tiny_contents()) == save_bundle(tmp_path / "b", tiny_contents())
    assert save_bundle(tmp_path / "c", tiny_contents(seed=1)) != save_bundle(tmp_path / "d", tiny_contents())


def test_a_map_is_a_file_of_its_own_and_is_checked(tmp_path: Path) -> None:
    contents = tiny_contents()
    without = save_bundle(tmp_path / "without", contents)
    code_map = fit_code_map(contents.codes)
    assert save_bundle(tmp_path / "with", replace(contents, code_map=code_map)) != without
    loaded = load_bundle(open_store(str(tmp_path / "with"))).code_map
    assert loaded is not None
    assert loaded.axes_2D.tobytes() == code_map.axes_2D.tobytes()
    assert load_bundle(open_store(str(tmp_path / "without"))).code_map is None
    save_file({"centre": np.zeros(3), "axes": np.zeros((2, 3))}, tmp_path / "with/map.safetensors")
    assert refusal(rewritten(tmp_path / "with", nothing)).field == "map.safetensors"
    save_file({"centre": np.zeros(4), "axes": np.full((2, 4), np.nan)}, tmp_path / "with/map.safetensors")
    assert refusal(rewritten(tmp_path / "with", nothing)).field == "map.safetensors:axes"


def test_what_is_loaded_is_what_was_saved(bundle: Path) -> None:
    contents, loaded = tiny_contents(), load_bundle(open_store(str(bundle)))
    assert loaded.info.classes == contents.classes
    assert loaded.decoder.keys() == contents.decoder.keys()
    assert all(np.array_equal(loaded.decoder[name], weight) for name, weight in contents.decoder.items())
    rows, labels = np.arange(30), np.arange(30) % 3
    drawn = noise(1, rows, np.zeros_like(rows), 4)
    saved_z, loaded_z = (latents.sample(drawn, labels).z_BD for latents in (contents.latents, loaded.latents))
    assert np.array_equal(saved_z, loaded_z)


def test_a_bundle_is_never_overwritten(bundle: Path) -> None:
    with pytest.raises(BundleError, match="immutable"):
        save_bundle(bundle, tiny_contents(seed=1))
    with pytest.raises(BundleError, match="file"):
        save_bundle(bundle / "bundle.json" / "below", tiny_contents())


@pytest.mark.parametrize("name", ["decoder", "encoder", "latents", "codes"])
def test_an_altered_file_is_refused(bundle: Path, name: str) -> None:
    path = bundle / f"{name}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert refusal(bundle).field == f"{name}.safetensors"


@pytest.mark.parametrize("name", ["decoder", "encoder", "latents", "codes"])
def test_a_missing_file_is_refused(bundle: Path, name: str) -> None:
    (bundle / f"{name}.safetensors").unlink()
    assert refusal(bundle).field == f"{name}.safetensors"


def test_a_pinned_digest_must_agree(bundle: Path) -> None:
    with pytest.raises(BundleError, match="digest"):
        load_bundle(open_store(str(bundle)), "sha256:" + "0" * 64)


def test_a_pickle_under_a_safetensors_name_is_refused_and_not_run(bundle: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    (bundle / "decoder.safetensors").write_bytes(pickle.dumps(Trap()))
    assert refusal(rewritten(bundle, nothing)).field == "decoder.safetensors"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda doc: doc.update(bundle_version=2), "bundle_version"),
        (lambda doc: doc.update(kind="something else"), "kind"),
        (lambda doc: doc["image"].update(width=16), ""),
        (lambda doc: doc["image"].update(width=7), "image.width"),
        (lambda doc: doc["image"].update(height=16, width=16), ""),
        (lambda doc: doc.update(latent_dim=5), ""),
        (lambda doc: doc["autoencoder"].update(family="diffusion"), "autoencoder.family"),
        (lambda doc: doc["files"].update({"run.pkl": {"digest": "sha256:" + "0" * 64, "size": 1}}), "files.run.pkl"),
        (lambda doc: doc["files"].pop("latents.safetensors"), ""),
        (lambda doc: doc["latents"].update(family="pickle"), "latents.family"),
        (lambda doc: doc.update(classes=["cat", "dog"]), "latents.safetensors"),
        (lambda doc: doc.update(extra=1), "extra"),
    ],
)
def test_a_document_that_does_not_fit_is_refused(
    bundle: Path, change: Callable[[dict[str, Any]], None], field: str
) -> None:
    got = refusal(rewritten(bundle, change)).field.removeprefix("bundle.json").strip(".")
    assert got.startswith(field)


@pytest.mark.parametrize("data", [b"", b"not json", b"[]", b'{"kind":1}', b"\x00" * 100])
def test_a_document_that_is_none_is_refused(bundle: Path, data: bytes) -> None:
    (bundle / "bundle.json").write_bytes(data)
    assert refusal(bundle).field.startswith("bundle.json")


def test_numbers_that_are_none_are_refused(bundle: Path) -> None:
    weights = load_file(bundle / "decoder.safetensors")
    name = next(name for name, weight in weights.items() if weight.dtype == np.float32)
    weights[name].flat[0] = np.nan
    save_file(weights, bundle / "decoder.safetensors")
    assert refusal(rewritten(bundle, nothing)).field == f"decoder.safetensors:{name}"


def test_weights_of_another_network_are_refused(bundle: Path, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "other", size=16)
    shutil.copy(other / "decoder.safetensors", bundle / "decoder.safetensors")
    loaded = load_bundle(open_store(str(rewritten(bundle, nothing))))
    with pytest.raises(BundleError, match=r"decoder\.safetensors"):
        ResidentDecoder(loaded, batch=4, dtype="float32", device="cpu")


def test_a_decoder_that_overflows_is_refused(bundle: Path) -> None:
    weights = load_file(bundle / "decoder.safetensors")
    huge = {
        name: weight if weight.dtype != np.float32 else np.full_like(weight, 3e38) for name, weight in weights.items()
    }
    save_file(huge, bundle / "decoder.safetensors")
    loaded = load_bundle(open_store(str(rewritten(bundle, nothing))))
    with pytest.raises(InvalidOutput, match="NaN or infinity"):
        ResidentDecoder(loaded, batch=4, dtype="float32", device="cpu").decode(np.ones((4, 4), dtype=np.float32))


def test_push_and_pull_carry_the_same_bytes(bundle: Path, bucket: str, s3_settings: Any, tmp_path: Path) -> None:
    root, here = open_store(f"{bucket}/mill", s3_settings), open_store(str(bundle))
    digest = push(here, root)
    before = {info.key: info.etag for info in root.list()}
    assert push(here, root) == digest
    assert {info.key: info.etag for info in root.list()} == before
    pull(root, digest, tmp_path / "pulled")
    assert {path.name: path.read_bytes() for path in (tmp_path / "pulled").iterdir()} == {
        path.name: path.read_bytes() for path in bundle.iterdir()
    }


def test_a_damaged_bundle_is_not_pushed(bundle: Path) -> None:
    (bundle / "decoder.safetensors").write_bytes(b"damaged")
    root = open_store("memory://damaged")
    with pytest.raises(BundleError):
        push(open_store(str(bundle)), root)
    assert list(root.list()) == []


def test_a_root_that_was_tampered_with_is_noticed(bundle: Path, tmp_path: Path) -> None:
    root = open_store(str(tmp_path / "root"))
    digest = push(open_store(str(bundle)), root)
    bundle_store(root, digest).put("decoder.safetensors", b"something else")
    with pytest.raises(BundleError, match=r"decoder\.safetensors"):
        pull(root, digest, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


@pytest.mark.parametrize("name", ["bundle.json", "decoder.safetensors", "codes.safetensors"])
@pytest.mark.parametrize("damage", [lambda data: b"x" + data[1:], lambda data: data + b"x", lambda data: None])
def test_pushing_again_repairs_damaged_objects(
    bundle: Path, tmp_path: Path, name: str, damage: Callable[[bytes], bytes | None]
) -> None:
    here, root = open_store(str(bundle)), open_store(str(tmp_path / "root"))
    target = bundle_store(root, push(here, root))
    intact = {info.key: info.etag for info in target.list()}
    data = damage(target.get(name))
    target.delete(name) if data is None else target.put(name, data)
    load_bundle(target, push(here, root))
    mended = {info.key: info.etag for info in target.list()}
    assert {key for key in intact if mended[key] != intact[key]} == {name}


def test_a_damaged_bundle_repairs_nothing_and_says_what_to_delete(bundle: Path, tmp_path: Path) -> None:
    here, root = open_store(str(bundle)), open_store(str(tmp_path / "root"))
    target = bundle_store(root, push(here, root))
    target.put("decoder.safetensors", b"something else")
    here.put("codes.safetensors", b"damaged as well")
    with pytest.raises(BundleError) as caught:
        push(here, root)
    assert caught.value.field == f"{target.url}/decoder.safetensors"
    assert "delete it" in caught.value.hint
    assert target.get("decoder.safetensors") == b"something else"


@final
class Overtaken(Store):
    """A store in which another client writes between ``head`` and ``create``."""

    def __init__(self, store: Store) -> None:
        self._store, self.url = store, store.url

    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        return self._store.get(key, limit)

    def head(self, key: str) -> ObjectInfo | None:
        return None

    def create(self, key: str, data: bytes) -> str:
        return self._store.create(key, data)

    def at(self, prefix: str) -> Store:
        return Overtaken(self._store.at(prefix))

    read = replace = put = delete = list = children = check_writable = None  # type: ignore[assignment]


def test_two_pushes_at_once_agree_and_a_conflict_says_what_to_delete(bundle: Path, tmp_path: Path) -> None:
    here, root = open_store(str(bundle)), open_store(str(tmp_path / "root"))
    digest = push(here, root)
    assert push(here, Overtaken(root)) == digest
    target = bundle_store(root, digest)
    target.put("decoder.safetensors", b"something else")
    with pytest.raises(BundleError, match="delete it and push again") as caught:
        push(here, Overtaken(root))
    assert caught.value.field == f"{target.url}/decoder.safetensors"


@final
class Unreadable(Store):
    """A store that reports a huge size for an object and does not allow reading it."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name, self.url = store, name, store.url

    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        assert key != self._name, f"{key} was read"
        return self._store.get(key, limit)

    def head(self, key: str) -> ObjectInfo | None:
        return self._store.head(key)

    read = create = replace = put = delete = list = children = check_writable = at = None  # type: ignore[assignment]


@pytest.mark.parametrize("name", ["decoder.safetensors", "encoder.safetensors", "latents.safetensors"])
def test_a_file_larger_than_declared_is_refused_unread(bundle: Path, name: str) -> None:
    with (bundle / name).open("ab") as file:
        file.truncate(2**40)
    with pytest.raises(BundleError, match=str(2**40)) as caught:
        load_bundle(Unreadable(open_store(str(bundle)), name))
    assert caught.value.field == name


def test_a_document_of_many_bytes_is_refused_unread(bundle: Path) -> None:
    with (bundle / "bundle.json").open("ab") as file:
        file.truncate(2**40)
    with pytest.raises(BundleError, match=str(2**40)):
        read_info(Unreadable(open_store(str(bundle)), "bundle.json"))


def test_missing_and_altered_bundles_give_different_errors(bundle: Path, tmp_path: Path) -> None:
    root = open_store(str(tmp_path / "root"))
    digest = push(open_store(str(bundle)), root)
    with pytest.raises(BundleMissing):
        read_info(open_store(str(tmp_path / "nowhere")))
    with pytest.raises(BundleMissing):
        pull(root, "sha256:" + "1" * 64, tmp_path / "pulled")
    bundle_store(root, digest).put("decoder.safetensors", b"something else")
    with pytest.raises(BundleError) as caught:
        pull(root, digest, tmp_path / "pulled")
    assert not isinstance(caught.value, BundleMissing)


def test_strided_weights_are_stored_as_they_are(tmp_path: Path) -> None:
    """The memory order of channels-last weights differs from the order of their shape."""
    contents = tiny_contents()
    strided = {name: np.asarray(weight, order="F") for name, weight in contents.decoder.items()}
    assert not all(weight.flags.c_contiguous for weight in strided.values())
    save_bundle(tmp_path / "b", replace(contents, decoder=strided))
    loaded = load_bundle(open_store(str(tmp_path / "b"))).decoder
    assert all(np.array_equal(loaded[name], weight) for name, weight in contents.decoder.items())
