"""Virtual datasets: the images of a recipe, made by the reader, are those of its stored builds."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from generator.datasets.torch_dataset import open_dataset
from generator.datasets.virtual_dataset import VirtualDataset
from generator.drafts import parse_draft, resolve_draft
from generator.errors import BundleError, BundleMissing, DatasetError, RejectionExhausted, SettingsError, SpecError
from generator.models.bundle import load_bundle, push
from generator.production.commit import locate_build
from generator.production.decoding import ResidentDecoder
from generator.production.mill import build
from generator.spec.recipe import JobSpec, Order, Recipe
from generator.store import open_store
from tests.support.bundles import screened_bundle, tiny_bundle

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),
]

SCREENED = {"label_floor": 0.05, "novelty_floor": 0.01, "density_floor": 0.1}
PLAIN: dict[str, Any] = {"label_floor": None, "novelty_floor": None}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def screened(root: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of a bundle with a judge and a copy index, in the root."""
    path = screened_bundle(tmp_path_factory.mktemp("screened") / "b")
    return push(open_store(str(path)), open_store(root))


def draft(bundle: str, **fields: Any) -> dict[str, Any]:
    return {"bundle": bundle, "count": 70, "shard_size": 30, "batch": 16, "seed": 3} | PLAIN | fields


def stored(recipe: Recipe, root: str, destination: Path) -> str:
    """The URL of a stored build of ``recipe``."""
    spec = JobSpec(recipe=recipe, order=Order(destination=str(destination), name="stored"))
    bundle = load_bundle(open_store(root).at(f"bundles/{recipe.bundle.removeprefix('sha256:')}"))
    build(locate_build(spec), bundle, device="cpu")
    return locate_build(spec).url


def assert_same(found: Iterable[Any], wanted: Iterable[Any]) -> None:
    count = 0
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.label, other.label)
        assert one.provenance == other.provenance
        count += 1
    assert count


def indices(batches: Iterable[Any]) -> list[int]:
    return [index for batch in batches for index in batch.provenance["index"].tolist()]


@pytest.mark.parametrize(
    "fields",
    [
        PLAIN,
        SCREENED,
        SCREENED | {"label_floor": None, "label_floors": {"cat": 0.2, "dog": None, "owl": 0.01}},
        PLAIN | {"image": "jpeg"},
        PLAIN
        | {"temperature": 0.7, "draw": {"mode": "between", "start": {"code": [0, 1, 0, 1]}, "end": {"reference": 2}}},
        PLAIN | {"dtype": "bfloat16", "published": "2026-01-01", "counts": {"cat": 50, "owl": 3}, "count": None},
    ],
    ids=["plain", "screened", "floors by class", "jpeg", "between", "published"],
)
@pytest.mark.parametrize("epoch", [0, 2])
def test_an_epoch_equals_a_stored_build_of_its_recipe(
    fields: dict[str, Any], epoch: int, root: str, screened: str, tmp_path: Path
) -> None:
    virtual = open_dataset(recipe=draft(screened, **fields), root=root, device="cpu")
    virtual.set_epoch(epoch)
    build_url = stored(virtual.epoch_recipe(epoch), root, tmp_path)
    assert_same(virtual, open_dataset(build_url))
    rows = open_dataset(build_url).table().to_pylist()
    for sample, row in zip(virtual, rows, strict=True):
        assert sample.provenance["recipe"] == virtual.epoch_recipe(epoch).digest
        for name in ("index", "attempt", "key", "cluster", "log_density", "label", "class", "label_confidence"):
            assert sample.provenance.get(name) == row[name], name


def test_a_refused_sample_is_drawn_again_as_in_a_build(root: str, screened: str) -> None:
    virtual = open_dataset(recipe=draft(screened, **SCREENED), root=root, device="cpu")
    assert max(sample.provenance["attempt"] for sample in virtual) > 0
    with pytest.raises(RejectionExhausted, match="max_attempts"):
        list(open_dataset(recipe=draft(screened, **SCREENED, max_attempts=1), root=root, device="cpu"))


@pytest.mark.slow
def test_options_give_what_they_give_for_a_stored_build(root: str, screened: str, tmp_path: Path) -> None:
    spec = draft(screened, **SCREENED)
    virtual = open_dataset(recipe=spec, root=root, device="cpu")
    url = stored(virtual.epoch_recipe(0), root, tmp_path)
    for options in (
        {"shuffle": True, "seed": 7},
        {"soft_labels": True, "provenance": False},
        {"transform": lambda image: image.astype(np.float32) / 255},
        {"rank": 1, "world_size": 3},
    ):
        assert_same(open_dataset(recipe=spec, root=root, device="cpu", **options), open_dataset(url, **options))
    for uneven in ("drop", "pad", "keep"):
        for rank in range(2):
            dealt = {"batch_size": 8, "uneven": uneven, "rank": rank, "world_size": 2, "shuffle": True}
            mine, theirs = open_dataset(recipe=spec, root=root, device="cpu", **dealt), open_dataset(url, **dealt)
            assert len(mine) == len(theirs)
            assert indices(mine) == indices(theirs)


def test_no_image_comes_twice(root: str, screened: str) -> None:
    virtual = open_dataset(recipe=draft(screened), root=root, device="cpu")
    seen = set()
    for epoch in range(4):
        virtual.set_epoch(epoch)
        seen |= {sample.image.tobytes() for sample in virtual}
    assert len(seen) == 4 * 70
    assert len({virtual.epoch_recipe(epoch).digest for epoch in range(1000)}) == 1000


@pytest.mark.parametrize("workers", [0, 2])
def test_states_go_on_without_loss(workers: int, root: str, screened: str) -> None:
    def opened(**options: Any) -> VirtualDataset:
        return open_dataset(
            recipe=draft(screened), root=root, device="cpu", batch_size=4, shuffle=True, uneven="keep", **options
        )

    whole, first = opened(), opened()
    for dataset in (whole, first):
        dataset.set_epoch(1)
    wanted = indices(whole)
    state = json.loads(json.dumps(first.state_dict(consumed=24)))
    parts = [opened(rank=rank, world_size=2) for rank in range(2)]
    for part in parts:
        part.load_state_dict(state)
    found = [list(DataLoader(part, batch_size=None, num_workers=workers)) for part in parts]
    together = [found[step % 2][step // 2] for step in range(sum(map(len, found)))]
    assert indices(together) == wanted[24:]
    other = open_dataset(recipe=draft(screened, seed=4), root=root, device="cpu", batch_size=4, shuffle=True)
    with pytest.raises(SpecError, match=r"state\.recipe"):
        other.load_state_dict(state)


@pytest.mark.slow
def test_a_stateful_loader_goes_on(root: str, screened: str) -> None:
    def loader() -> Any:
        dataset = open_dataset(recipe=draft(screened), root=root, device="cpu", batch_size=4)
        return StatefulDataLoader(dataset, batch_size=None, num_workers=2)

    wanted, first = indices(loader()), loader()
    steps = iter(first)
    head = indices([next(steps) for _ in range(5)])
    state = first.state_dict()
    del steps
    again = loader()
    again.load_state_dict(state)
    assert head + indices(again) == wanted


@pytest.mark.slow
def test_spawned_workers_make_the_same_samples(root: str, screened: str) -> None:
    dataset = open_dataset(recipe=draft(screened, **SCREENED), root=root, device="cpu", batch_size=10)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    for made, alone in zip(loader, dataset, strict=True):
        assert torch.equal(made.image, alone.image)
    assert indices(pickle.loads(pickle.dumps(dataset))) == indices(dataset)


def test_a_forked_worker_on_a_gpu_is_refused(root: str, screened: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(recipe=draft(screened), root=root, device="cpu", batch_size=10)
    # What a machine with a GPU would resolve; the refusal comes before the device is touched.
    monkeypatch.setattr("generator.datasets.virtual_dataset.resolve_device", lambda name: torch.device("cuda"))
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(SettingsError, match="spawned workers"):
        list(loader)


@pytest.mark.slow
def test_the_settings_and_random_numbers_of_the_training_are_left_alone(root: str, screened: str) -> None:
    def settings() -> tuple[Any, ...]:
        backends = torch.backends
        older = torch.get_float32_matmul_precision(), backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
        newer = backends.mkldnn.matmul.fp32_precision, backends.cudnn.conv.fp32_precision
        return older, newer, backends.cudnn.benchmark, backends.cudnn.deterministic, torch.get_num_threads()

    dataset = open_dataset(recipe=draft(screened, **SCREENED), root=root, device="cpu")
    alone = list(dataset)
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    try:
        torch.set_float32_matmul_precision("medium")
        torch.set_num_threads(2)
        torch.backends.cudnn.benchmark = True
        before = settings()
        torch.manual_seed(5)
        wanted = torch.rand(3)
        torch.manual_seed(5)
        fresh = open_dataset(recipe=draft(screened, **SCREENED), root=root, device="cpu")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = []
            for sample in fresh:
                assert settings() == before
                found.append(sample)
        assert torch.equal(torch.rand(3), wanted)
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark
    assert_same(found, alone)


def test_decoded_batches_are_full(root: str, screened: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    whole = ResidentDecoder.decode

    def decode(self: ResidentDecoder, z_BD: np.ndarray, labels_B: np.ndarray | None = None) -> np.ndarray:
        rows.append(len(z_BD))
        return whole(self, z_BD, labels_B)

    dataset = open_dataset(recipe=draft(screened), root=root, device="cpu", batch_size=5, uneven="keep")
    next(iter(dataset))
    monkeypatch.setattr(ResidentDecoder, "decode", decode)
    assert len(indices(dataset)) == 70
    assert rows == [16, 16, 16, 16, 6]


def test_a_sample_that_is_refused_for_long_does_not_let_memory_grow(
    root: str, screened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from generator.production.pipeline.filters import Screen, ScreenResult

    check, calls = Screen.check, [0]

    def refuse_the_first(self: Screen, images_BHWC: np.ndarray, labels_B: np.ndarray) -> ScreenResult:
        found = check(self, images_BHWC, labels_B)
        calls[0] += 1
        found.passed_B[0] = calls[0] > 20  # a refused sample comes first in the next batch
        return found

    monkeypatch.setattr(Screen, "check", refuse_the_first)
    asked: list[int] = []
    dataset = open_dataset(recipe=draft(screened, count=1000), root=root, device="cpu")
    wanted = VirtualDataset._wanted

    def count(self: VirtualDataset, epoch: int, spans: Any) -> Any:
        for each in wanted(self, epoch, spans):
            asked.append(each[0])
            yield each

    monkeypatch.setattr(VirtualDataset, "_wanted", count)
    assert next(iter(dataset)).provenance["attempt"] == 20
    assert len(asked) == 2 * 16


def test_a_recipe_comes_in_many_forms(root: str, screened: str, tmp_path: Path) -> None:
    fields = draft(screened)
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(fields))
    spec, _ = resolve_draft(
        parse_draft(fields | {"destination": str(tmp_path), "name": "x", "published": None}), open_store(root)
    )
    digests = set()
    for form in (fields, path, str(path), spec, spec.recipe, parse_draft(fields | {"destination": "d", "name": "x"})):
        dataset = open_dataset(recipe=form, root=root, device="cpu")
        digests.add(dataset.epoch_recipe(0).digest)
    assert digests == {spec.recipe.digest}
    assert dataset.classes == ("cat", "dog", "owl")


def test_a_bundle_in_s3_is_kept_in_the_cache(
    screened: str, root: str, bucket: str, s3_settings: Any, tmp_path: Path
) -> None:
    remote = open_store(bucket, s3_settings)
    push(open_store(f"{root}/bundles/{screened.removeprefix('sha256:')}"), remote)
    options = {"root": bucket, "s3": s3_settings, "cache": tmp_path / "cache", "device": "cpu"}
    assert_same(open_dataset(recipe=draft(screened), **options), open_dataset(recipe=draft(screened), root=root))
    assert [path.name for path in (tmp_path / "cache" / "bundles").iterdir()] == [screened.removeprefix("sha256:")]


def test_an_altered_bundle_is_refused(tmp_path: Path) -> None:
    root = open_store(str(tmp_path / "root"))
    digest = push(open_store(str(tiny_bundle(tmp_path / "b"))), root)
    key = f"bundles/{digest.removeprefix('sha256:')}/decoder.safetensors"
    data = bytearray(root.get(key))
    data[-1] ^= 1
    root.put(key, bytes(data))
    with pytest.raises(BundleError, match=r"decoder\.safetensors"):
        next(iter(open_dataset(recipe=draft(digest), root=root, device="cpu")))


@pytest.mark.parametrize(
    ("fields", "options", "error", "field"),
    [
        ({}, {"root": None}, SpecError, "root"),
        ({}, {"url": "datasets/photos"}, SpecError, "recipe"),
        ({"recipe": None}, {}, SpecError, "recipe"),
        ({"recipe": 7}, {}, SpecError, "recipe"),
        ({"bundle": "photos.bundle"}, {}, SpecError, "bundle"),
        ({"bundle": "s3://elsewhere/b"}, {}, SpecError, "bundle"),
        ({"bundle": "sha256:" + "0" * 64}, {}, BundleMissing, "bundle"),
        ({"count": 0}, {}, SpecError, "count"),
        ({"colour": 1}, {}, SpecError, "colour"),
        ({}, {"where": "label == 1"}, SpecError, "where"),
        ({}, {"map_style": True}, SpecError, "map_style"),
        ({}, {"soft_labels": True}, DatasetError, "soft_labels"),
        ({}, {"device": "tpu"}, SettingsError, "device"),
        ({}, {"rank": 3, "world_size": 2}, SpecError, "rank"),
        ({}, {"batch_size": 0}, SpecError, "batch_size"),
    ],
)
def test_virtual_datasets_that_cannot_be(
    fields: dict[str, Any], options: dict[str, Any], error: type[Exception], field: str, root: str, screened: str
) -> None:
    recipe = fields["recipe"] if "recipe" in fields else draft(screened) | fields
    with pytest.raises(error) as refused:
        open_dataset(**{"recipe": recipe, "root": root, "device": "cpu"} | options)
    assert refused.value.field == field  # type: ignore[attr-defined]
