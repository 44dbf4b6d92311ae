"""Draws that name their codes: a row of the bundle's codes, or an object beside the recipe."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save as safetensors_bytes

from generator.curation.retention import find_orphans
from generator.datasets.replay import replay
from generator.datasets.verification import verify_dataset
from generator.drafts import check_named_codes, parse_draft, resolve_draft
from generator.errors import BundleError, DatasetError, IntegrityError, LatentmillError, SpecError
from generator.models.bundle import Bundle, BundleCache, load_bundle, load_codes, push, read_info
from generator.production.commit import BuildLocation, begin_build, locate_build, read_build_location
from generator.production.mill import build
from generator.production.pipeline.draw_codes import read_draw_codes
from generator.production.pipeline.sampling import Sampler
from generator.production.provenance.manifest import code_key
from generator.spec.canonical import canonical_json, digest_of, validate
from generator.spec.code_object import code_object_bytes, parse_code_object
from generator.spec.recipe import JobSpec, Order, Recipe, RowCode, StoredCode
from generator.store import Store, open_store
from tests.support.bundles import large_bundle, tiny_bundle

NUMBERS = 1024


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return large_bundle(tmp_path_factory.mktemp("large") / "bundle")


@pytest.fixture(scope="module")
def large(directory: Path) -> Bundle:
    return load_bundle(open_store(str(directory)))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(open_store(str(tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle"))))


def draft_of(directory: Path, **changes: Any) -> dict[str, Any]:
    place = f"memory://{uuid.uuid4().hex}"
    plan = {"counts": {"cat": 12}, "shard_size": 5, "batch": 4, "seed": 3}
    return {"bundle": str(directory), "destination": place, "name": "named", **plan, **changes}


def resolved(directory: Path, draw: dict[str, Any]) -> JobSpec:
    return resolve_draft(parse_draft(draft_of(directory, draw=draw)))[0]


def spec_for(bundle: Bundle, draw: dict[str, Any], objects: dict[str, bytes] | None = None) -> JobSpec:
    counts = (12, *[0] * (len(bundle.info.classes) - 1))
    fields = {"bundle": bundle.digest, "classes": bundle.info.classes, "counts": counts, "shard_size": 5, "batch": 4}
    order = Order(destination=f"memory://{uuid.uuid4().hex}", name="named")
    return JobSpec(recipe=Recipe.model_validate(fields | {"draw": draw}), order=order, code_objects=objects or {})


def stored(code_D: np.ndarray) -> tuple[dict[str, str], dict[str, bytes]]:
    """A name of the code, and the object that it names."""
    data = code_object_bytes(code_D)
    return {"object": digest_of(data)}, {digest_of(data): data}


def points(bundle: Bundle, draw: dict[str, Any], objects: dict[str, bytes] | None = None) -> np.ndarray:
    location = locate_build(spec_for(bundle, draw, objects))
    sampler = Sampler(location.recipe, bundle.latents, read_draw_codes(location, bundle))
    rows = np.arange(12)
    return sampler.draw_attempt(rows, np.zeros_like(rows), np.zeros_like(rows)).z_BD


def test_a_named_code_draws_what_its_numbers_draw(tiny: Bundle) -> None:
    assert tiny.read_codes is not None
    codes_ND = tiny.read_codes().codes_ND
    first, second = (tuple(codes_ND[row].tolist()) for row in (3, 8))
    name, objects = stored(codes_ND[8])
    around, between = {"mode": "around", "distance": 0.4}, {"mode": "between", "distance": 0.2}
    whole = points(tiny, around | {"code": first})
    assert points(tiny, around | {"code": {"row": 3}}).tobytes() == whole.tobytes()
    assert points(tiny, around | {"code": {"row": 4}}).tobytes() != whole.tobytes()
    line = points(tiny, between | {"start": first, "end": second})
    assert points(tiny, between | {"start": {"row": 3}, "end": name}, objects).tobytes() == line.tobytes()
    assert points(tiny, between | {"start": first, "end": {"row": 8}}).tobytes() == line.tobytes()


@pytest.mark.parametrize(
    ("draw", "kinds"),
    [
        ({"mode": "around", "reference": 3, "distance": 0.3}, [RowCode]),
        ({"mode": "around", "code": [0.25] * NUMBERS, "distance": 0.3}, [StoredCode]),
        ({"mode": "between", "start": {"reference": 1}, "end": {"code": [0.5] * NUMBERS}}, [RowCode, StoredCode]),
        ({"mode": "between", "start": {"reference": 1}, "end": {"image": "image.png"}}, [RowCode, StoredCode]),
    ],
    ids=["row", "object", "row and object", "row and image"],
)
def test_a_build_of_large_codes_is_made_verified_replayed_and_resumed(
    directory: Path,
    large: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    draw: dict[str, Any],
    kinds: list[type],
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32)).save("image.png")
    spec = resolved(directory, draw)
    found = [getattr(spec.recipe.draw, name) for name in ("code", "start", "end") if hasattr(spec.recipe.draw, name)]
    assert [type(code) for code in found] == kinds
    assert len(spec.recipe.canonical()) < 1500
    assert set(spec.recipe.stored_codes) == set(spec.code_objects)
    location = locate_build(spec)
    manifest = build(location, large, device="cpu")
    extras = {file.key: file.digest for file in manifest.extras}
    assert {code_key(digest): digest for digest in spec.recipe.stored_codes}.items() <= extras.items()
    assert verify_dataset(location.url, deep=True).problems == ()
    assert replay(location.url, 7, large, device="cpu").identical
    whole = {info.key: location.store.get(info.key) for info in location.store.list() if "runs/" not in info.key}
    for key in ("manifest.json", "receipts/000001.json", "shards/named-000001.tar"):
        location.store.delete(key)
    build(read_build_location(location.store, "named"), large, device="cpu")  # another process: only what is stored
    again = {info.key: location.store.get(info.key) for info in location.store.list() if "runs/" not in info.key}
    assert again == whole


def test_a_draft_of_a_bundle_of_few_numbers_holds_them_itself(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    spec = resolved(bundle, {"mode": "around", "reference": 3, "distance": 0.5})
    assert isinstance(spec.recipe.draw.code, tuple)  # type: ignore[union-attr]
    assert (spec.recipe.stored_codes, spec.code_objects) == ((), {})
    assert b"code_objects" not in spec.canonical()


def test_a_job_spec_carries_its_codes_through_json(directory: Path) -> None:
    spec = resolved(directory, {"mode": "around", "code": [0.1] * NUMBERS, "distance": 0.3})
    document = json.loads(spec.canonical())
    again = validate(JobSpec, document, field="spec", error=SpecError)
    assert again == spec
    assert again.build_id == spec.build_id
    (digest,) = document["code_objects"]
    for broken in ("AAAA", "no base64!"):
        with pytest.raises(SpecError, match=r"^spec\.code_objects"):
            validate(JobSpec, document | {"code_objects": {digest: broken}}, field="spec", error=SpecError)


@pytest.mark.parametrize(
    ("code", "field"),
    [
        ({"row": -1}, r"draw\.code\.row"),
        ({"row": True}, r"draw\.code\.row"),
        ({"row": 1, "object": "sha256:" + "0" * 64}, r"draw\.code\.object"),
        ({"object": "sha256:0"}, r"draw\.code\.object"),
        ({}, r"draw\.code\.object"),
        ([0.0] * 513, r"draw\.code"),
        ("near", r"draw\.code"),
    ],
)
def test_names_of_codes_that_are_none_are_refused(tiny: Bundle, code: Any, field: str) -> None:
    fields = {"bundle": tiny.digest, "counts": (3,), "draw": {"mode": "around", "code": code, "distance": 0.5}}
    with pytest.raises(SpecError, match=rf"^{field}: expected"):
        validate(Recipe, fields, field="", error=SpecError)


def test_a_version_1_recipe_names_no_codes(tiny: Bundle) -> None:
    draw = {"mode": "around", "code": {"row": 1}, "distance": 0.5}
    with pytest.raises(SpecError, match=r"^draw: expected codes as numbers in a recipe of version 1"):
        validate(
            Recipe,
            {"recipe_version": 1, "bundle": tiny.digest, "counts": (3,), "draw": draw},
            field="",
            error=SpecError,
        )


def test_a_row_that_the_bundle_has_not_is_refused_before_anything_is_written(tiny: Bundle, tmp_path: Path) -> None:
    spec = spec_for(tiny, {"mode": "around", "code": {"row": 30}, "distance": 0.5})
    location = locate_build(spec)
    with pytest.raises(SpecError, match=r"^draw\.code\.row: expected 0 \.\. 29.*got 30"):
        build(location, tiny, device="cpu")
    assert list(location.store.list()) == []
    store = open_store(str(tiny_bundle(tmp_path / "again")))
    with pytest.raises(SpecError, match=r"^draw\.code\.row: expected 0 \.\. 29"):
        check_named_codes(spec, store, read_info(store)[1])


def _objects(name: str) -> tuple[str, dict[str, bytes]]:
    data = {
        "another length": code_object_bytes([1.0, 2.0]),
        "float32": safetensors_bytes({"code": np.zeros(4, dtype=np.float32)}),
        "another tensor": safetensors_bytes({"code": np.zeros(4), "more": np.zeros(1)}),
        "no numbers": safetensors_bytes({"code": np.full(4, np.nan)}),
        "too far": code_object_bytes([1e7, 0.0, 0.0, 0.0]),
        "no object": b"pickle",
    }[name]
    return digest_of(data), {digest_of(data): data}


@pytest.mark.parametrize("name", ["another length", "float32", "another tensor", "no numbers", "too far", "no object"])
def test_objects_that_are_no_codes_of_the_bundle_are_refused(tiny: Bundle, tmp_path: Path, name: str) -> None:
    digest, objects = _objects(name)
    spec = spec_for(tiny, {"mode": "around", "code": {"object": digest}, "distance": 0.5}, objects)
    location = locate_build(spec)
    with pytest.raises(SpecError, match=r"^codes/"):
        build(location, tiny, device="cpu")
    assert list(location.store.list()) == []
    store = open_store(str(tiny_bundle(tmp_path / "again")))
    with pytest.raises(SpecError, match=r"^draw\.code\.object"):
        check_named_codes(spec, store, read_info(store)[1])


def begun(bundle: Bundle) -> BuildLocation:
    """A build with a stored code, as another process finds it."""
    name, objects = stored(np.ones(4))
    location = locate_build(spec_for(bundle, {"mode": "around", "code": name, "distance": 0.5}, objects))
    begin_build(location)
    return read_build_location(location.store, "named")


def test_an_object_that_is_missing_or_altered_is_an_error(tiny: Bundle) -> None:
    location = begun(tiny)
    (key,) = (info.key for info in location.store.list("codes/"))
    assert read_draw_codes(location, tiny)["code"].tolist() == [1.0] * 4
    location.store.put(key, code_object_bytes([1.0, 1.0, 1.0, 2.0]))
    with pytest.raises(IntegrityError, match=r"^codes/"):
        read_draw_codes(location, tiny)
    location.store.delete(key)
    with pytest.raises(DatasetError, match=r"^codes/"):
        read_draw_codes(location, tiny)
    with pytest.raises(DatasetError, match=r"^codes/"):
        begin_build(location)


def test_a_recipe_is_stored_after_its_codes(tiny: Bundle) -> None:
    spec = spec_for(tiny, {"mode": "around", "code": {"object": digest_of(b"nowhere")}, "distance": 0.5})
    location = locate_build(spec)
    with pytest.raises(DatasetError, match="the code that the recipe names"):
        begin_build(location)
    assert list(location.store.list()) == []


@pytest.mark.parametrize("damage", ["altered", "missing", "not listed"])
def test_verification_checks_the_codes(tiny: Bundle, damage: str) -> None:
    location = begun(tiny)
    build(location, tiny, device="cpu")
    assert verify_dataset(location.url, deep=True).problems == ()
    (key,) = (info.key for info in location.store.list("codes/"))
    if damage == "altered":
        location.store.put(key, location.store.get(key)[:-1] + b"x")
    elif damage == "missing":
        location.store.delete(key)
    else:
        manifest = json.loads(location.store.get("manifest.json"))
        manifest["extras"] = [file for file in manifest["extras"] if file["key"] != key]
        location.store.put("manifest.json", canonical_json(manifest))
    where = "manifest.json" if damage == "not listed" else key
    assert where in {problem.where for problem in verify_dataset(location.url, deep=True).problems}


def test_a_bundle_without_its_codes_has_no_rows(tiny: Bundle, tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "b")
    document = json.loads((tmp_path / "b/bundle.json").read_bytes())
    del document["files"]["codes.safetensors"]
    (tmp_path / "b/bundle.json").write_bytes(canonical_json(document))
    bare = load_bundle(open_store(str(tmp_path / "b")))
    location = locate_build(spec_for(bare, {"mode": "around", "code": {"row": 1}, "distance": 0.5}))
    with pytest.raises(BundleError, match=r"draw\.code\.row"):
        build(location, bare, device="cpu")


def test_a_workers_cache_pulls_a_bundle_again_for_its_codes(tmp_path: Path) -> None:
    root = open_store(str(tmp_path / "root"))
    source = open_store(str(tiny_bundle(tmp_path / "b")))
    digest = push(source, root)
    cached = BundleCache(tmp_path / "cache", 2**30).load(digest, (root,))
    assert cached.read_codes is not None
    expected_ND = load_codes(source, read_info(source)[1]).codes_ND
    assert np.array_equal(cached.read_codes().codes_ND, expected_ND)
    shutil.rmtree(tmp_path / "cache")
    assert np.array_equal(cached.read_codes().codes_ND, expected_ND)


@pytest.mark.parametrize("intent", [None, "cancelled"])
def test_a_sweep_keeps_what_a_cancelled_build_is_resumed_with(tiny: Bundle, tmp_path: Path, intent: str | None) -> None:
    name, objects = stored(np.ones(4))
    spec = spec_for(tiny, {"mode": "around", "code": name, "distance": 0.5}, objects)
    spec = spec.model_copy(update={"order": Order(destination=str(tmp_path / "out"), name="named")})
    location = locate_build(spec)
    build(location, tiny, device="cpu")
    location.store.delete("manifest.json")
    store = open_store(str(tmp_path / "out"))
    for orphan in _orphans(store, intent):
        orphan.remove()
    left = [info.key for info in location.store.list()]
    assert left == ([] if intent is None else [*map(code_key, spec.recipe.stored_codes), "recipe.json"])
    assert _orphans(store, intent) == []


def _orphans(store: Store, intent: str | None) -> list[Any]:
    from datetime import UTC, datetime, timedelta

    return list(find_orphans(store, datetime.now(UTC) + timedelta(hours=1), lambda _: intent))


def test_an_object_is_a_pure_function_of_its_numbers() -> None:
    data = code_object_bytes([0.1, -2.0])
    assert digest_of(data) == "sha256:83f87c3a629871e1515bd88175a6c953650bf77697478a5aeb45225a357c6265"
    assert parse_code_object(data, 2, field="code").tolist() == [0.1, -2.0]
    with pytest.raises(LatentmillError):
        parse_code_object(data[:-1], 2, field="code")
