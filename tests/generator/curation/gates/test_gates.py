"""Gates: which builds pass and which fail, with small real builds and builds with chosen pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from generator.curation.gates import Gates, Reference, Verdict, evaluate_gates, read_verdict
from generator.curation.gates.checks import check_against_promoted
from generator.curation.gates.drift import confidence_drop, drift
from generator.curation.gates.image_subset import ImageSubset
from generator.datasets.promotion import promote
from generator.datasets.torch_dataset import open_dataset
from generator.datasets.verification import verify_dataset
from generator.drafts import parse_draft, resolve_draft
from generator.errors import DatasetError, SpecError
from generator.models.autoencoders.config import VaeConfig
from generator.models.autoencoders.settings import TrainSettings
from generator.models.bundle import load_bundle, save_bundle
from generator.models.latents.config import GaussianSettings
from generator.models.learning import train_bundle
from generator.models.screening.config import PassRates
from generator.models.screening.copy_index import fit_copy_index
from generator.models.screening.data import ScreeningData
from generator.production.commit import BuildLocation, FinishedShard, locate_build
from generator.production.mill import build
from generator.sources import load_source
from generator.spec.canonical import digest_of, validate
from generator.spec.plan import ShardPlan
from generator.store import Store, open_store
from tests.support.bundles import screened_bundle, tiny_bundle, tiny_contents
from tests.support.small_builds import SmallBuild

FREE = {"label_floor": None, "novelty_floor": None}


@dataclass(frozen=True)
class DatasetBuilder:
    """Makes builds of datasets in ``home`` with real bundles."""

    home: Path
    bundle: Path

    def make(self, name: str, *, bundle: Path | None = None, seed: int = 0, count: int = 360, **fields: object) -> str:
        """Make a build of the dataset ``home/name``. Returns its id."""
        spec = {"bundle": str(bundle or self.bundle), "destination": str(self.home), "name": name, "count": count}
        job, home = resolve_draft(parse_draft(spec | {"seed": seed, "shard_size": 100} | FREE | fields))
        return build(locate_build(job), load_bundle(home), device="cpu").build_id

    def dataset(self, name: str) -> Store:
        return open_store(f"{self.home}/{name}")


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> DatasetBuilder:
    home = tmp_path_factory.mktemp("nights")
    return DatasetBuilder(home, screened_bundle(home / "bundle"))


@pytest.fixture(scope="module")
def first(builder: DatasetBuilder) -> str:
    """The build that readers of ``nightly`` get."""
    build_id = builder.make("nightly")
    promote(builder.dataset("nightly"), build_id, logical_date=None, by="test")
    return build_id


def gate(verdict: Verdict, name: str) -> bool | None:
    return next(check.holds for check in verdict.checks if check.gate == name)


def failed(verdict: Verdict) -> set[str]:
    return {check.gate for check in verdict.checks if check.holds is False}


def evaluate(
    builder: DatasetBuilder,
    name: str,
    build_id: str,
    gates: Gates = Gates(),  # noqa: B008
    bundle: Path | None = None,
) -> Verdict:
    return evaluate_gates(builder.dataset(name), build_id, gates, bundle=open_store(str(bundle or builder.bundle)))


def test_another_night_of_the_same_bundle_passes(builder: DatasetBuilder, first: str) -> None:
    second = builder.make("nightly", seed=1)
    verdict = evaluate(builder, "nightly", second, Gates(copies=0.5))
    assert (verdict.holds, verdict.reasons, verdict.against) == (True, (), first)
    assert gate(verdict, "drift") is True
    store = builder.dataset("nightly").at(f"builds/{second}")
    assert read_verdict(store) == verdict
    assert verify_dataset(store.url, deep=True).problems == ()  # the verdict is outside the commit
    again = evaluate(builder, "nightly", second, Gates(copies=0.5))
    assert again.checks == verdict.checks


def test_the_first_build_of_all_is_judged_without_drift(builder: DatasetBuilder, first: str) -> None:
    verdict = evaluate(builder, "nightly", first, Gates(copies=0.5, drift=0.01))
    assert verdict.against is None
    assert (verdict.holds, gate(verdict, "drift")) == (True, None)


def test_another_decoder_is_drift(builder: DatasetBuilder, first: str) -> None:
    other = tiny_bundle(builder.home / "other", seed=5)
    strange = builder.make("nightly", bundle=other)
    verdict = evaluate(builder, "nightly", strange, bundle=other)
    assert failed(verdict) == {"drift"}
    assert "last promoted" in verdict.reasons[0]


def test_samples_of_one_cluster_are_drift(builder: DatasetBuilder, first: str) -> None:
    narrow = builder.make("nightly", draw={"mode": "cluster", "cluster": 0}, temperature=0.3)
    assert "drift" in failed(evaluate(builder, "nightly", narrow))


def test_a_class_that_is_missing_is_kept_back(builder: DatasetBuilder, first: str) -> None:
    some = builder.make("nightly", count=None, counts={"cat": 150, "owl": 150})
    verdict = evaluate(builder, "nightly", some, Gates(copies=None, drift=1.0))
    assert failed(verdict) == {"classes"}
    assert "'dog'" in verdict.reasons[0]
    alone = builder.make("alone", count=None, counts={"cat": 150, "owl": 150})
    assert failed(evaluate(builder, "alone", alone, Gates(copies=None, balance=0.1))) == {"balance"}


def test_a_build_of_copies_is_kept_back(builder: DatasetBuilder) -> None:
    """The copy index of the bundle contains the images of the build itself."""
    innocent = builder.make("innocent", count=300)
    images = np.stack([image for image, _, _ in open_dataset(f"{builder.home}/innocent/builds/{innocent}")])
    rng = np.random.default_rng(0)
    holdout = rng.integers(0, 256, (150, *images.shape[1:]), dtype=np.uint8)
    screening = ScreeningData(copy_index=fit_copy_index(images, holdout, seed=0), pass_rates=PassRates(novelty=1.0))
    bundle = builder.home / "copying"
    save_bundle(bundle, replace(tiny_contents(), screening=screening))
    copies = builder.make("copies", bundle=bundle, count=300)
    verdict = evaluate(builder, "copies", copies, bundle=bundle)
    assert "copies" in failed(verdict)
    assert next(check.measured for check in verdict.checks if check.gate == "copies") == 1.0
    assert "copies" not in failed(evaluate(builder, "copies", copies, Gates(copies=None), bundle=bundle))


def test_a_gate_with_a_number_that_cannot_be_measured_does_not_hold(builder: DatasetBuilder, first: str) -> None:
    dataset = builder.dataset("nightly")
    assert gate(evaluate_gates(dataset, first, Gates()), "copies") is None
    verdict = evaluate_gates(dataset, first, Gates(copies=0.01))
    assert failed(verdict) == {"copies"}
    assert "not found" in verdict.reasons[0]


def test_a_reference_that_does_not_fit_is_a_reason_and_no_crash(builder: DatasetBuilder, first: str) -> None:
    gates = Gates(copies=None, reference=Reference(source="digits", fidelity=10.0))
    assert failed(evaluate(builder, "nightly", first, gates)) == {"reference"}


@pytest.mark.slow
def test_a_build_is_measured_beside_the_images_behind_it(tmp_path: Path, one_thread: None) -> None:
    config = VaeConfig(size=8, channels=1, latent_dim=4, width=8)
    training = TrainSettings(epochs=2, batch=64, holdout=0.2, seed=5, device="cpu")
    train_bundle(load_source("digits"), config, training, tmp_path / "bundle", sampler=GaussianSettings(), judge=None)
    builder = DatasetBuilder(tmp_path, tmp_path / "bundle")
    build_id = builder.make("referenced", count=200)
    wanted = {"source": "digits", "steps": 20, "limit": 100}
    easy = Reference.model_validate(wanted | {"copies": 1.0, "fidelity": 1e6, "usefulness": 0.001})
    verdict = evaluate(builder, "referenced", build_id, Gates(copies=None, reference=easy))
    assert verdict.holds, verdict.reasons
    measured = {check.gate: check.measured for check in verdict.checks}
    assert {"reference.copies", "reference.fidelity", "reference.usefulness"} <= set(measured)
    assert builder.dataset("referenced").at(f"builds/{build_id}").head("reports/quality.json") is not None
    hard = Reference.model_validate(wanted | {"copies": None, "fidelity": 1.0, "usefulness": 2.0})
    verdict = evaluate(builder, "referenced", build_id, Gates(copies=None, reference=hard))
    assert failed(verdict) == {"reference.fidelity", "reference.usefulness"}


@dataclass(frozen=True)
class Repeating(SmallBuild):
    """A build that repeats the same ``distinct`` images."""

    distinct: int = 5

    def pixels(self, index: int) -> np.ndarray:
        return super().pixels(index % self.distinct)


LARGE = SmallBuild(counts=(120, 120), shard_size=60)


def evaluate_small(made: SmallBuild, home: Path, gates: Gates = Gates()) -> Verdict:  # noqa: B008
    location, _ = made.commit(str(home))
    return evaluate_gates(open_store(f"{home}/{made.name}"), location.build_id, gates)


@pytest.mark.slow
def test_images_that_are_all_different_pass_and_repeated_ones_do_not(tmp_path: Path) -> None:
    assert evaluate_small(LARGE, tmp_path).holds
    for distinct in (1, 5, 230):
        repeating = Repeating(name=f"repeats-{distinct}", counts=(120, 120), shard_size=60, distinct=distinct)
        assert failed(evaluate_small(repeating, tmp_path)) == {"duplicates"}
        assert evaluate_small(repeating, tmp_path, Gates(duplicates=None)).holds


def test_images_that_are_nearly_the_same_are_found_by_the_copy_index(builder: DatasetBuilder, first: str) -> None:
    """The networks of these tests are random, so all images are almost equal."""
    verdict = evaluate(builder, "nightly", first, Gates(copies=None, near_duplicates=0.05))
    assert failed(verdict) == {"near_duplicates"}
    assert evaluate(builder, "nightly", first, Gates(copies=None, near_duplicates=1.0)).holds
    assert failed(evaluate_gates(builder.dataset("nightly"), first, Gates(near_duplicates=1.0))) == {"near_duplicates"}


def test_numbers_that_are_asked_for(tmp_path: Path) -> None:
    assert failed(evaluate_small(LARGE, tmp_path, Gates(images=241))) == {"images"}
    assert evaluate_small(LARGE, tmp_path, Gates(images=240, balance=1.0)).holds


def test_damage_is_a_reason(tmp_path: Path) -> None:
    location, manifest = LARGE.commit(str(tmp_path))
    dataset, shard = open_store(f"{tmp_path}/small"), manifest.shards[2].shard
    data = location.store.get(shard.key)
    location.store.put(shard.key, data[:-3000] + b"x" + data[-2999:])
    verdict = evaluate_gates(dataset, location.build_id, Gates())
    assert failed(verdict) == {"readable"}
    assert shard.key in verdict.reasons[0]
    location.store.delete(shard.key)
    assert failed(evaluate_gates(dataset, location.build_id, Gates())) == {"readable"}


@dataclass(frozen=True)
class OddTable(SmallBuild):
    """A build whose tables have text in ``column``, with matching digests in the receipts."""

    column: str = "label"
    text: str | None = None

    def shard(self, location: BuildLocation, plan: ShardPlan) -> FinishedShard:
        made, out = super().shard(location, plan), io.BytesIO()
        table = pq.read_table(io.BytesIO(made.table))
        texts = pa.array([self.text] * len(plan), pa.string())
        pq.write_table(table.set_column(table.schema.names.index(self.column), self.column, texts), out)
        stated = {"digest": digest_of(out.getvalue()), "size": len(out.getvalue())}
        receipt = made.receipt.model_copy(update={"table": made.receipt.table.model_copy(update=stated)})
        return FinishedShard(made.archive, out.getvalue(), receipt)


@pytest.mark.parametrize(("column", "text"), [("label", "round"), ("image_sha256", None), ("label_confidence", "?")])
def test_a_table_that_says_something_else_is_damage(tmp_path: Path, column: str, text: str | None) -> None:
    assert failed(evaluate_small(OddTable(column=column, text=text), tmp_path)) == {"readable"}


def test_only_committed_builds_are_judged(tmp_path: Path) -> None:
    location = SmallBuild().begin(str(tmp_path))
    with pytest.raises(DatasetError, match="committed"):
        evaluate_gates(open_store(f"{tmp_path}/small"), location.build_id, Gates())


def test_images_of_another_size_are_drift(tmp_path: Path) -> None:
    before = LARGE.commit(str(tmp_path))[0].build_id
    promote(open_store(f"{tmp_path}/small"), before, logical_date=None, by="test")
    verdict = evaluate_small(replace(LARGE, size=12, seed=1), tmp_path)
    assert failed(verdict) == {"drift"}
    assert "12x12x1 instead of 8x8x1" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("gates", "expected"),
    [
        (Gates(), {"drift"}),
        (Gates(drift=None, confidence_drop=0.5), {"confidence"}),
        (Gates(drift=None, confidence_drop=None), set()),
    ],
)
def test_a_damaged_promoted_build_fails_the_gate_that_needs_it(
    tmp_path: Path, gates: Gates, expected: set[str]
) -> None:
    dataset, promoted = open_store(f"{tmp_path}/small"), LARGE.commit(str(tmp_path))[0].build_id
    promote(dataset, promoted, logical_date=None, by="test")
    shard = next(iter(dataset.at(f"builds/{promoted}").list("shards/")))
    dataset.at(f"builds/{promoted}").put(shard.key, b"damaged")
    build_id = replace(LARGE, seed=1).commit(str(tmp_path))[0].build_id
    verdict = evaluate_gates(dataset, build_id, gates)
    assert failed(verdict) == expected
    assert all("is damaged" in reason for reason in verdict.reasons)


def test_unlabelled_builds_have_drift_too(tmp_path: Path) -> None:
    plain = SmallBuild(classes=(), counts=(200,), shard_size=50)
    promote(open_store(f"{tmp_path}/small"), plain.commit(str(tmp_path))[0].build_id, logical_date=None, by="test")
    assert evaluate_small(replace(plain, seed=1), tmp_path).holds


@pytest.mark.parametrize(
    "wrong", [{"drift": 1.5}, {"copies": "always"}, {"novelty": 0.1}, {"limit": 5}, {"reference": {"fidelity": 2.0}}]
)
def test_gates_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        validate(Gates, wrong, field="gates", error=SpecError)


def make_subset(images: np.ndarray, labels: np.ndarray) -> ImageSubset:
    nothing = np.empty(0)
    return ImageSubset(images, labels, nothing, nothing, nothing)


def make_confidences(labels: np.ndarray, confidence: np.ndarray) -> ImageSubset:
    nothing = np.empty(0)
    return ImageSubset(nothing, nothing, confidence.astype(np.float32), labels, nothing)


def test_the_class_whose_labels_fell_most_is_named() -> None:
    labels = np.arange(300) % 3
    before = make_confidences(labels, np.full(300, 0.9))
    fallen = make_confidences(labels, np.where(labels == 1, 0.4, 0.95))
    found = confidence_drop(fallen, before, 3)
    assert found is not None
    assert (found[0], found[1]) == (pytest.approx(0.5, abs=1e-6), 1)
    gates = Gates(drift=None)
    check = check_against_promoted(fallen, before, gates, SmallBuild(classes=("a", "b", "c"), counts=(1, 1, 1)))  # type: ignore[arg-type]
    assert check[1] is not None
    assert (check[1].holds, "'b'" in check[1].words) == (False, True)
    silent = make_confidences(labels, np.full(300, np.nan))
    assert confidence_drop(silent, before, 3) is None
    few = make_confidences(labels[:60], np.zeros(60))
    assert confidence_drop(few, before, 3) is None  # 20 rows per class are too few


@pytest.mark.slow
def test_classes_in_another_order_are_the_same_classes(tmp_path: Path) -> None:
    """A retrained bundle may number its classes in another order."""
    dataset = open_store(f"{tmp_path}/small")
    before = Classes(counts=(120, 120), shard_size=60)
    promote(dataset, before.commit(str(tmp_path))[0].build_id, logical_date=None, by="test")
    turned = Classes(counts=(120, 120), shard_size=60, classes=("square", "round"), seed=1)
    assert evaluate_small(turned, tmp_path).holds
    swapped = Classes(counts=(120, 120), shard_size=60, classes=("square", "round"), seed=2, swapped=True)
    assert failed(evaluate_small(swapped, tmp_path)) == {"drift"}


@dataclass(frozen=True)
class Classes(SmallBuild):
    """Round images are dark and square ones light; with ``swapped`` the opposite."""

    swapped: bool = False

    def shard(self, location: BuildLocation, plan: ShardPlan) -> FinishedShard:
        self.labels.update(zip(plan.indices_N.tolist(), plan.labels_N.tolist(), strict=True))
        return super().shard(location, plan)

    @cached_property
    def labels(self) -> dict[int, int]:
        return {}

    def pixels(self, index: int) -> np.ndarray:
        light = (self.classes[self.labels[index]] == "square") != self.swapped
        return super().pixels(index) // 4 + 150 * light


@pytest.mark.slow
def test_drift_tells_changes_of_images_labels_and_shares_from_chance() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(800) % 4
    centres = rng.uniform(0, 200, (4, 8, 8, 1))

    def images(of: np.ndarray, shift: float = 0.0) -> np.ndarray:
        noise = rng.normal(0, 20, (len(of), 8, 8, 1))
        return np.clip(centres[of] + noise + shift, 0, 255).astype(np.uint8)

    def found(other: ImageSubset) -> float:
        result = drift(other, make_subset(images(labels), labels), labelled=True)
        assert result is not None
        assert 0.0 <= result.share <= 1.0
        assert (result.p_value < 0.01) == (result.share > 0.02)
        return result.share

    assert found(make_subset(images(labels), labels)) < 0.02
    assert found(make_subset(images(labels, shift=25.0), labels)) > 0.1
    assert found(make_subset(images(labels), (labels + 1) % 4)) > 0.9
    assert found(make_subset(images(labels % 2), labels % 2)) > 0.1
    assert (
        drift(make_subset(images(labels[:40]), labels[:40]), make_subset(images(labels), labels), labelled=True) is None
    )
