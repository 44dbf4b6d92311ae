"""Recipes, orders and drafts: validation, the identity of a build, and the resolution of drafts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from generator.drafts import JobDraft, parse_draft, read_draft, resolve_draft
from generator.errors import BundleError, BundleMissing, SpecError
from generator.models.autoencoders.factory import load_encoder
from generator.models.autoencoders.inference import encode
from generator.models.bundle import load_codes, load_encoder_weights, read_info
from generator.spec.canonical import canonical_json, digest_of, read_json, short_repr, validate
from generator.spec.recipe import AroundDraw, BetweenDraw, JobSpec, Order, Recipe
from generator.store import open_store
from tests.support.bundles import tiny_bundle

BUNDLE = "sha256:" + "ab" * 32


def fields(**changes: Any) -> dict[str, Any]:
    return {"bundle": "b", "destination": "out", "name": "tiny", "count": 30} | changes


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "b")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"count": 0}, "count"),
        ({"count": -5}, "count"),
        ({"count": 10**9 + 1}, "count"),
        ({"count": 16**5000}, "count"),
        ({"density_floor": 16**5000}, "density_floor"),
        ({"count": "many"}, "count"),
        ({"count": None, "counts": {"cat": -1}}, "counts.cat"),
        ({"count": None, "counts": {}}, "counts"),
        ({"name": "Has Space"}, "name"),
        ({"name": "../up"}, "name"),
        ({"tenant": "a/b"}, "tenant"),
        ({"image": "gif"}, "image.format"),
        ({"image": {"format": "png", "quality": 3}}, "image.quality"),
        ({"image": {"format": "jpeg", "quality": 101}}, "image.quality"),
        ({"seed": "seven"}, "seed"),
        ({"format": "zip"}, "format"),
        ({"sidecars": ["wids"]}, "sidecars.0"),
        ({"seed": True}, "seed"),
        ({"draw": "sideways"}, "draw.mode"),
        ({"draw": {"cluster": 1}}, "draw"),
        ({"draw": {"mode": "cluster"}}, "draw.cluster"),
        ({"draw": {"mode": "cluster", "cluster": -1}}, "draw.cluster"),
        ({"draw": {"mode": "around", "distance": 0.5}}, "draw"),
        ({"draw": {"mode": "around", "code": [1.0], "reference": 3, "distance": 0.5}}, "draw"),
        ({"draw": {"mode": "around", "reference": 3}}, "draw.distance"),
        ({"draw": {"mode": "around", "reference": 3, "distance": 0.0}}, "draw.distance"),
        ({"draw": {"mode": "around", "reference": 3, "distance": 1.1}}, "draw.distance"),
        ({"draw": {"mode": "around", "code": [0.0, float("nan")], "distance": 0.5}}, "draw.code.1"),
        ({"draw": {"mode": "around", "code": [0.0, 1e300], "distance": 0.5}}, "draw.code.1"),
        ({"draw": {"mode": "around", "code": [], "distance": 0.5}}, "draw.code"),
        ({"draw": {"mode": "around", "reference": "x", "distance": 0.5}}, "draw.reference"),
        ({"draw": {"mode": "between", "start": {"reference": 1}}}, "draw.end"),
        ({"draw": {"mode": "between", "start": {"reference": 1}, "end": {}}}, "draw.end"),
    ],
)
def test_a_draft_names_the_field_that_is_wrong(change: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_draft(fields(**change))
    assert caught.value.field == field
    assert caught.value.exit_code == 2
    assert caught.value.expected
    assert caught.value.got


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 16**5000}, "seed"),
        ({"count": 10**7, "shard_size": 1}, "shard_size"),
        ({"count": None, "counts": {"cat": 10**9, "dog": 1}}, "counts"),
        ({"shard_size": 0}, "shard_size"),
        ({"batch": 0}, "batch"),
        ({"dtype": "int8"}, "dtype"),
        ({"density_floor": 1.0}, "density_floor"),
        ({"density_floor": float("nan")}, "density_floor"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"count": None}, "count"),
        ({"counts": {"cat": 3}}, "count"),
        ({"count": None, "counts": {"unicorn": 3}}, "counts.unicorn"),
        ({"destination": "gopher://x"}, "url"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"draw": {"mode": "cluster", "cluster": 2}}, "draw.cluster"),
        ({"draw": {"mode": "around", "code": [1.0, 2.0], "distance": 0.5}}, "draw.code"),
        ({"draw": {"mode": "around", "reference": 30, "distance": 0.5}}, "draw.reference"),
        ({"draw": {"mode": "around", "reference": 0, "distance": 0.5}}, "draw.reference"),
        ({"draw": {"mode": "around", "image": "/nowhere/at/all.png", "distance": 0.5}}, "draw.image"),
        ({"draw": {"mode": "between", "start": {"reference": 1}, "end": {"code": [1.0]}}}, "draw.end.code"),
        ({"draw": {"mode": "between", "start": {"image": __file__}, "end": {"reference": 1}}}, "draw.start.image"),
    ],
)
def test_resolving_names_the_field_that_is_wrong(bundle: Path, change: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve_draft(parse_draft(fields(bundle=str(bundle), **change)))
    assert caught.value.field == field


def test_references_become_the_codes_that_they_name(bundle: Path, tmp_path: Path) -> None:
    store = open_store(str(bundle))
    codes_ND = load_codes(store, read_info(store)[1]).codes_ND
    pixels = np.random.default_rng(0).integers(0, 255, (12, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    ends = {"start": {"reference": 17}, "end": {"image": str(tmp_path / "photo.png")}}
    draw = resolve_draft(parse_draft(fields(bundle=str(bundle), draw={"mode": "between", **ends})))[0].recipe.draw
    assert isinstance(draw, BetweenDraw)
    assert draw.start == tuple(codes_ND[17].tolist())
    info = read_info(store)[1]
    weights = {name: torch.from_numpy(weight) for name, weight in load_encoder_weights(store, info).items()}
    grey = Image.fromarray(pixels).convert("L").resize((8, 8), Image.Resampling.LANCZOS, box=(4, 0, 16, 12))
    expected = encode(load_encoder(info.autoencoder, weights), np.array(grey)[None, :, :, None])[0]
    assert draw.end == tuple(expected.tolist())


def test_more_like_a_training_image_is_of_its_class(bundle: Path) -> None:
    draft = fields(bundle=str(bundle), draw={"mode": "around", "reference": 17, "distance": 0.5})
    with pytest.raises(
        SpecError, match=r"the class asked for \('cat'\), got row 17, which is of 'dog'.*for 'dog' alone"
    ):
        resolve_draft(parse_draft(draft))
    spec = resolve_draft(parse_draft(draft | {"count": None, "counts": {"dog": 30}}))[0]
    assert spec.recipe.counts == (0, 30, 0)
    assert isinstance(spec.recipe.draw, AroundDraw)


@pytest.mark.parametrize("missing", ["encoder", "codes"])
def test_a_bundle_that_lacks_what_is_referred_to_is_named(tmp_path: Path, missing: str) -> None:
    path = tiny_bundle(tmp_path / "b") / "bundle.json"
    info = json.loads(path.read_bytes())
    del info["files"][f"{missing}.safetensors"]
    path.write_bytes(canonical_json(info))
    Image.new("L", (8, 8)).save(tmp_path / "grey.png")
    wanted = {"encoder": {"image": str(tmp_path / "grey.png")}, "codes": {"reference": 3}}[missing]
    draft = parse_draft(fields(bundle=str(tmp_path / "b"), draw={"mode": "around", "distance": 0.5, **wanted}))
    with pytest.raises(BundleError, match=f"{missing}.safetensors"):
        resolve_draft(draft)


def test_a_reference_is_resolved_without_torch(bundle: Path) -> None:
    draw = {"mode": "between", "start": {"reference": 3}, "end": {"code": [1, 2, 3, 4]}}
    code = (
        "import sys; from generator.drafts import parse_draft, resolve_draft; "
        f"resolve_draft(parse_draft({fields(bundle=str(bundle), draw=draw)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_way_to_draw_can_be_named_alone() -> None:
    assert parse_draft(fields(draw="distribution")) == parse_draft(fields())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": -5}, "count: expected at least 1, got -5"),
        ({"seed": "x"}, "seed: expected a whole number, got 'x'"),
        ({"image": "gif"}, "image.format: expected one of 'png', 'jpeg', got 'gif'"),
        (
            {"count": None, "counts": {}},
            "counts: expected at least 1 item(s), got {}",
        ),
        ({"bundle": ""}, "bundle: expected text of at least 1 character(s), got ''"),
        ({"draw": [1]}, "draw: expected a mapping of fields, got [1]"),
        (
            {"draw": {"mode": "between", "start": 3, "end": {"reference": 4}}},
            "draw.start: expected a mapping of fields, got 3",
        ),
        (
            {"draw": {"mode": "around", "code": 7, "distance": 0.5}},
            "draw.code: expected a list, got 7",
        ),
        (
            {"draw": {"mode": "cluster", "cluster": 1, "weight": 2}},
            "draw.weight: expected a known field of draw, got unknown field 'weight'",
        ),
    ],
)
def test_a_refusal_reads_as_a_sentence(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_draft(fields(**change))
    assert str(caught.value) == words


def test_one_count_for_each_class() -> None:
    with pytest.raises(SpecError) as caught:
        validate(Recipe, {"bundle": BUNDLE, "classes": ("a", "b"), "counts": (1,)}, field="", error=SpecError)
    assert str(caught.value) == "counts: expected 2 entries, one per class, not 1, got (1,)"
    with pytest.raises(SpecError) as caught:
        validate(Recipe, {"bundle": BUNDLE, "classes": ("a", "a"), "counts": (1, 1)}, field="", error=SpecError)
    assert caught.value.field == "classes"


class Counted:
    """Counts calls of ``repr``."""

    times = 0

    def __repr__(self) -> str:
        self.times += 1
        return "counted"


def test_a_value_that_is_large_only_when_written_out_is_shown_short() -> None:
    leaf = Counted()
    value: Any = leaf
    for _ in range(6):
        value = [value] * 10
    assert len(short_repr({"a": value})) <= 120
    assert leaf.times == 0
    assert len(short_repr([16**5000, "x" * 10**6, {16**5000: 1}])) <= 120


def test_a_missing_bundle_is_named() -> None:
    with pytest.raises(BundleMissing, match=r"bundle\.json"):
        resolve_draft(parse_draft(fields(bundle="/nowhere/at/all")))


def test_a_total_is_spread_evenly_and_classes_are_the_bundles(bundle: Path) -> None:
    spec, _ = resolve_draft(parse_draft(fields(bundle=str(bundle), count=31)))
    assert spec.recipe.classes == ("cat", "dog", "owl")
    assert spec.recipe.counts == (11, 10, 10)
    assert spec.recipe.bundle == read_info(open_store(str(bundle)))[0]


def test_total_and_equal_counts_are_one_recipe(bundle: Path) -> None:
    by_total = resolve_draft(parse_draft(fields(bundle=str(bundle), count=30)))[0]
    counts = {"owl": 10, "cat": 10, "dog": 10}
    by_class = resolve_draft(parse_draft(fields(bundle=str(bundle), count=None, counts=counts)))[0]
    assert by_total.recipe.digest == by_class.recipe.digest
    assert by_total.job_id == by_class.job_id


def test_the_order_does_not_change_the_recipe_but_the_job(bundle: Path) -> None:
    here = resolve_draft(parse_draft(fields(bundle=str(bundle))))[0]
    there = resolve_draft(parse_draft(fields(bundle=str(bundle), destination="elsewhere")))[0]
    assert here.build_id == there.build_id
    assert here.job_id != there.job_id


@pytest.mark.parametrize("change", [{"seed": 1}, {"shard_size": 999}, {"revision": 1}, {"batch": 128}])
def test_what_determines_bytes_changes_the_digest(change: dict[str, Any]) -> None:
    recipe = Recipe(bundle=BUNDLE, counts=(10,))
    assert recipe.digest != recipe.model_copy(update=change).digest


def test_stored_bytes_are_what_is_hashed() -> None:
    recipe = Recipe(bundle=BUNDLE, classes=("a", "b"), counts=(3, 4), density_floor=0.1)
    again = Recipe.model_validate(json.loads(recipe.canonical()))
    assert again == recipe
    assert digest_of(again.canonical()) == recipe.digest


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_canonical_json_round_trips_and_ignores_key_order(value: Any) -> None:
    data = canonical_json(value)
    assert json.loads(data) == value
    if isinstance(value, dict):
        assert canonical_json(dict(reversed(value.items()))) == data


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": 1,}'])
def test_json_that_does_not_parse_is_refused(data: bytes) -> None:
    with pytest.raises(SpecError, match="spec"):
        read_json(data, field="spec", error=SpecError)


@pytest.mark.parametrize("text", ["", "- a\n- b", "just words", "a: [", "!!python/object/apply:os.system ['true']"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match="spec"):
        read_draft(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"absent\.yaml"):
        read_draft(tmp_path / "absent.yaml")


def read_error(path: Path, text: str) -> SpecError:
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_draft(path)
    return caught.value


def test_aliases_are_refused_before_anything_is_made_of_them(tmp_path: Path) -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True))
    refused = read_error(tmp_path / "spec.yaml", bomb)
    assert (refused.field, refused.expected) == ("spec", "YAML without aliases")
    assert refused.got == "the alias *a in line 2"
    assert "alias" in read_error(tmp_path / "spec.yaml", "name: n\nimage: &i {format: png}\ncount: *i\n").got


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("name: n\ncount: 1\nname: m\n", "name", 3),
        ("name: n\ncounts:\n  cat: 1\n  cat: 2\n", "cat", 4),
        ('{"name": "n", "name": "m"}', "name", 1),
    ],
)
def test_a_key_that_is_given_twice_is_named_with_its_line(tmp_path: Path, text: str, key: str, line: int) -> None:
    refused = read_error(tmp_path / "spec.yaml", text)
    assert (refused.field, refused.expected) == (key, "each key once")
    assert refused.got == f"a second {key!r} in line {line}"


def test_a_number_of_many_digits_in_a_file_is_refused(tmp_path: Path) -> None:
    text = f"bundle: b\ndestination: out\nname: n\ncount: 0x{'f' * 5000}\n"
    assert read_error(tmp_path / "spec.yaml", text).field == "count"
    refused = read_error(tmp_path / "spec.yaml", f"name: n\ncount: {'1:' * 20_000}1\n")
    assert (refused.field, refused.got) == ("spec", "a number of 40001 characters in line 2")


def test_yaml_and_python_are_one_spec(tmp_path: Path, bundle: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(f"bundle: {bundle}\ndestination: out\nname: tiny\ncount: 30\nimage: jpeg\n")
    assert read_draft(path) == parse_draft(fields(bundle=str(bundle), image={"format": "jpeg"}))


def test_specs_are_immutable_values() -> None:
    spec = JobSpec(recipe=Recipe(bundle=BUNDLE, counts=(1,)), order=Order(destination="out", name="a"))
    assert spec == JobSpec.model_validate_json(spec.model_dump_json())
    with pytest.raises(ValueError, match="frozen"):
        spec.order.name = "b"  # type: ignore[misc]
    assert isinstance(parse_draft(fields()), JobDraft)


def test_format_and_sidecars_are_part_of_the_identity_unless_they_are_the_default() -> None:
    plain = Recipe(bundle=BUNDLE, counts=(3,))
    assert not {"format", "sidecars"} & plain.model_dump(mode="json").keys()
    assert Recipe(bundle=BUNDLE, counts=(3,), format="webdataset", sidecars=()).digest == plain.digest
    others = Recipe(bundle=BUNDLE, counts=(3,), format="mds"), Recipe(bundle=BUNDLE, counts=(3,), sidecars=("dali",))
    assert len({recipe.digest for recipe in (plain, *others)}) == 3
    assert all(Recipe.model_validate_json(recipe.canonical()) == recipe for recipe in others)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sidecars": ["dali", "dali"]}, "sidecars"),
        ({"format": "parquet", "sidecars": ["dali"]}, "sidecars"),
        ({"recipe_version": 1, "format": "mds"}, "format"),
        ({"recipe_version": 1, "sidecars": ["dali"]}, "sidecars"),
    ],
)
def test_formats_and_sidecars_that_do_not_go_together_are_refused(
    bundle: Path, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(SpecError) as caught:
        resolve_draft(parse_draft(fields(bundle=str(bundle)) | change))
    assert caught.value.field == field


def test_mds_shards_over_4_gib_are_refused_before_any_work(tmp_path: Path) -> None:
    large = fields(bundle=str(tiny_bundle(tmp_path / "b", size=128, channels=3)), shard_size=100_000, count=200_000)
    assert resolve_draft(parse_draft(large | {"format": "parquet"}))[0].recipe.format == "parquet"
    with pytest.raises(SpecError, match=r"^shard_size: .*4 GiB"):
        resolve_draft(parse_draft(large | {"format": "mds"}))
    few = large | {"format": "mds", "count": 50}
    assert resolve_draft(parse_draft(few))[0].recipe.shard_size == 100_000
