"""A build read by other libraries: webdataset, datasets and mlcroissant give the same as ``open_dataset``."""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generator.datasets.torch_dataset import open_dataset
from generator.datasets.verification import verify_dataset
from generator.drafts import JobDraft, resolve_draft
from generator.models.bundle import load_bundle
from generator.production.commit import locate_build
from generator.production.mill import build
from generator.production.shards import read_samples
from generator.spec.canonical import sha256_hex
from generator.spec.recipe import ImageSettings, JpegSettings, PngSettings
from generator.store import open_store
from tests.support.bundles import screened_bundle, tiny_bundle

pytestmark = [
    # webdataset leaves the archives it read open, and the garbage collector complains in whichever test comes next.
    pytest.mark.filterwarnings(r"ignore:unclosed file .*\.tar:ResourceWarning"),
    pytest.mark.filterwarnings(
        r"ignore:Exception ignored in. <_io\.FileIO name='.*\.tar':pytest.PytestUnraisableExceptionWarning"
    ),
]

Seen = list[tuple[str, int]]  # of every sample, in order: sha256 of its pixels, label

CLASSES = ("cat", "dog", "a | strange: name")
BUILDS: dict[str, tuple[tuple[str, ...], int, ImageSettings]] = {
    "grey png": (CLASSES, 1, PngSettings()),
    "colour jpeg": (CLASSES, 3, JpegSettings()),
    "unlabelled png": ((), 3, PngSettings()),
}
OTHER_FORMATS: dict[str, dict[str, Any]] = {
    "parquet": {"format": "parquet"},
    "mds": {"format": "mds"},
    "dali": {"sidecars": ["dali"]},
}


def reader(name: str) -> Any:
    """The third-party module; if it is missing, the test is skipped, but fails in CI."""
    return importlib.import_module(name) if "CI" in os.environ else pytest.importorskip(name)


def made(home: Path, kind: str, seed: int = 0, **fields: Any) -> Path:
    """The directory of a committed build of 22 samples in 4 shards."""
    classes, channels, image = BUILDS[kind]
    where = tiny_bundle(home / "bundle", classes=classes, channels=channels)
    return made_of(where, home, image=image, seed=seed, **fields)


def made_of(bundle: Path, home: Path, **fields: Any) -> Path:
    """The directory of a committed build of 22 samples in 4 shards, of the bundle in the directory ``bundle``."""
    common = {"destination": str(home), "name": "tiny", "count": 22, "shard_size": 6, "batch": 8}
    draft = JobDraft(bundle=str(bundle), **common, **fields)
    spec, store = resolve_draft(draft)
    build(locate_build(spec), load_bundle(store), device="cpu")
    return home / "tiny" / "builds" / spec.build_id


@pytest.fixture(scope="module", params=list(BUILDS))
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("out"), request.param)


@pytest.fixture(
    scope="module",
    params=[(kind, name) for name in OTHER_FORMATS for kind in BUILDS],
    ids=lambda param: f"{param[1]}, {param[0]}",
)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a build of another format, or with sidecars."""
    kind, name = request.param
    return made(tmp_path_factory.mktemp("out"), kind, **OTHER_FORMATS[name])


def pixels_sha256(image: Any) -> str:
    """Digest of a PIL image or an array; a grey image may have a channel axis or not."""
    return sha256_hex(np.ascontiguousarray(np.asarray(image)).tobytes())


def ours(directory: Path) -> Seen:
    return [(pixels_sha256(image), label) for image, label, _ in open_dataset(str(directory))]


def shards(directory: Path) -> list[str]:
    return [str(path) for path in sorted((directory / "shards").iterdir())]


def stated_facts(directory: Path) -> list[dict[str, Any]]:
    """The JSON of every sample, in order."""
    found = list[dict[str, Any]]()
    for shard in shards(directory):
        files = (files for _, files in read_samples(Path(shard).read_bytes(), field=shard))
        found += [json.loads(sample["json"]) for sample in files]
    return found


def extension(directory: Path) -> str:
    recipe = json.loads((directory / "recipe.json").read_text())
    return "jpg" if recipe["image"]["format"] == "jpeg" else "png"


def from_rows(rows: Iterable[dict[str, Any]], suffix: str) -> Seen:
    return [(pixels_sha256(row[suffix]), row.get("cls", -1)) for row in rows]


@pytest.fixture
def webdataset() -> Iterator[Any]:
    yield reader("webdataset")
    gc.collect()  # see above: not in the test of another file


@pytest.fixture
def hugging_face(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """``datasets``, with its own cache and without network."""
    datasets = reader("datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return datasets


def test_the_build_is_intact_and_repeats(directory: Path) -> None:
    assert verify_dataset(str(directory), deep=True).problems == ()
    assert len(set(ours(directory))) == 22
    assert ours(directory) == ours(directory)


def test_a_build_of_another_format_has_the_samples_of_webdataset_shards(
    other: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All that readers of this project say of it, but its recipe."""
    recipe = json.loads((other / "recipe.json").read_text())
    channels = open_dataset(str(other)).manifest.image.channels
    kind = {1: "grey png", 3: "colour jpeg" if recipe["classes"] else "unlabelled png"}[channels]
    plain = made(tmp_path_factory.mktemp("plain"), kind)
    assert verify_dataset(str(other), deep=True).problems == ()
    for map_style in (False, True):
        pairs = zip(
            open_dataset(str(other), map_style=map_style), open_dataset(str(plain), map_style=map_style), strict=True
        )
        for found, wanted in pairs:
            np.testing.assert_array_equal(found.image, wanted.image)
            assert found.label == wanted.label
            assert found.provenance | {"recipe": ""} == wanted.provenance | {"recipe": ""}


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_parquet_shards_without_arguments(tmp_path: Path, hugging_face: Any, streaming: bool) -> None:
    directory = made(tmp_path, "grey png", format="parquet")
    rows = hugging_face.load_dataset(str(directory), split="train", streaming=streaming)
    assert [(pixels_sha256(row["image"]), row["label"]) for row in rows] == ours(directory)
    assert tuple(rows.features["label"].names) == CLASSES
    for row, sample in zip(rows, open_dataset(str(directory)), strict=True):
        assert {name: row[name] for name in sample.provenance} == sample.provenance
    alone = hugging_face.load_dataset("parquet", data_files=shards(directory), split="train", streaming=streaming)
    assert alone.features == rows.features  # the files say so themselves
    assert [(pixels_sha256(row["image"]), row["label"]) for row in alone] == ours(directory)


def test_webdataset(directory: Path, webdataset: Any) -> None:
    suffix = extension(directory)
    grey = open_dataset(str(directory)).manifest.image.channels == 1
    samples = webdataset.WebDataset(shards(directory), shardshuffle=False).decode("l8" if grey else "rgb8")
    seen = [(pixels_sha256(sample[suffix]), sample.get("cls", -1)) for sample in samples]
    assert seen == ours(directory)


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_the_shards(directory: Path, hugging_face: Any, streaming: bool) -> None:
    rows = hugging_face.load_dataset("webdataset", data_files=shards(directory), split="train", streaming=streaming)
    assert from_rows(rows, extension(directory)) == ours(directory)


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_the_directory_by_its_card(directory: Path, hugging_face: Any, streaming: bool) -> None:
    rows = hugging_face.load_dataset(str(directory), split="train", streaming=streaming)
    assert from_rows(rows, extension(directory)) == ours(directory)
    if "cls" in rows.features:
        assert tuple(rows.features["cls"].names) == open_dataset(str(directory)).classes
    assert [row["json"] for row in rows] == stated_facts(directory)
    assert rows.features["json"].keys() >= {"label_confidence", "likely_labels", "likely_probabilities"}


def test_other_readers_give_what_the_judge_found(tmp_path: Path, hugging_face: Any) -> None:
    directory = made_of(screened_bundle(tmp_path / "bundle"), tmp_path, label_floor=0.05, novelty_floor=None)
    facts = stated_facts(directory)
    assert all(0.05 <= fact["label_confidence"] <= 1 and fact["likely_labels"] for fact in facts)
    rows = hugging_face.load_dataset(str(directory), split="train")
    assert [row["json"] for row in rows] == facts
    records = sorted(croissant(str(directory / "croissant.json"), tmp_path)["records"], key=lambda row: row["index"])
    for record, fact in zip(records, sorted(facts, key=lambda fact: fact["index"]), strict=True):
        for name in ("label_confidence", "likely_labels", "likely_probabilities"):
            assert np.allclose(record[name], fact[name], rtol=1e-6)


def test_the_card_is_one_that_the_hub_accepts(directory: Path) -> None:
    hub = reader("huggingface_hub")
    card = hub.DatasetCard.load(directory / "README.md")
    assert card.data.pretty_name == "tiny"
    assert "synthetic" in card.data.tags


def test_the_examples_of_the_card_run(
    directory: Path, hugging_face: Any, webdataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory)
    examples = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), flags=re.DOTALL)
    assert len(examples) == 3
    names: dict[str, Any] = {}
    for example in examples:
        exec(example, names)
    assert len(names["images"]) == 22


READ_CROISSANT = """
import hashlib, json, sys
import mlcroissant, numpy

dataset = mlcroissant.Dataset(sys.argv[1])
records = []
for record in dataset.records("samples"):
    record = {name.removeprefix("samples/"): value for name, value in record.items()}
    image = record.pop("image", None)
    pixels = b"" if image is None else numpy.ascontiguousarray(numpy.asarray(image)).tobytes()
    text = {name: value.decode() for name, value in record.items() if isinstance(value, bytes)}
    records.append(record | text | ({"pixels": hashlib.sha256(pixels).hexdigest()} if pixels else {}))
enumerated = dataset.metadata.record_sets[0].data or []
issues = dataset.metadata.ctx.issues
found = {"errors": sorted(issues.errors), "warnings": sorted(issues.warnings), "records": records}
json.dump(found | {"classes": enumerated}, sys.stdout)
"""


def croissant(file: str, cache: Path, cwd: Path | None = None) -> dict[str, Any]:
    """The samples that mlcroissant reads from a build, in its own process, since its cache is fixed at import."""
    reader("mlcroissant")
    done = subprocess.run(
        [sys.executable, "-c", READ_CROISSANT, file],
        env=os.environ | {"CROISSANT_CACHE": str(cache)},
        cwd=cwd,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check_records(directory: Path, found: dict[str, Any], *, images: bool = True) -> None:
    """Compare what mlcroissant read with what ``open_dataset`` gives."""
    assert found["errors"] == found["warnings"] == []
    records = sorted(found["records"], key=lambda record: record["index"])
    assert [("pixels" in record) for record in records] == [images] * 22
    if images:
        assert [(record["pixels"], record.get("label", -1)) for record in records] == ours(directory)
    for record, sample in zip(records, open_dataset(str(directory)), strict=True):
        stated = {name: value for name, value in sample.provenance.items() if name not in ("recipe", "synthetic")}
        assert stated == {name: record[name] for name in stated}
        assert len(record["latent"]) == 4
    names = [row["classes/name"] for row in found["classes"]]
    assert tuple(names) == open_dataset(str(directory)).classes


def check_validates(directory: Path, cache: Path) -> None:
    reader("mlcroissant")
    script = Path(sys.executable).with_name("mlcroissant")
    done = subprocess.run(
        [script, "validate", "--jsonld", directory / "croissant.json"],
        env=os.environ | {"CROISSANT_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Done." in said
    assert "warning" not in said.lower(), said
    assert not re.search(r"^[WE]\d{4}", said, re.MULTILINE), said  # absl's prefixes of warnings and errors


def test_mlcroissant_reads_every_record(directory: Path, tmp_path: Path) -> None:
    check_records(directory, croissant(str(directory / "croissant.json"), tmp_path))


def test_mlcroissant_validates_without_a_warning(directory: Path, tmp_path: Path) -> None:
    check_validates(directory, tmp_path)


def test_mlcroissant_reads_and_validates_other_formats(other: Path, tmp_path: Path) -> None:
    is_mds = open_dataset(str(other)).manifest.recipe.get("format") == "mds"
    check_records(other, croissant(str(other / "croissant.json"), tmp_path), images=not is_mds)
    check_validates(other, tmp_path)


@pytest.mark.parametrize("name", ["webdataset", *OTHER_FORMATS])
def test_mlcroissant_reads_a_build_whose_files_are_named_by_sets(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generator.production.provenance.croissant_records.MAX_LISTED_SHARDS", 3)
    directory = made(tmp_path, "grey png", **OTHER_FORMATS.get(name, {}))
    document = json.loads((directory / "croissant.json").read_text())
    assert {part["@type"] for part in document["distribution"]} == {"cr:FileSet"}
    check_validates(directory, tmp_path / "cache")
    found = croissant(str(directory / "croissant.json"), tmp_path / "cache")
    check_records(directory, found, images=name == "parquet")  # mlcroissant unpacks no set of tars


def test_mlcroissant_does_not_mix_builds_and_reads_a_relative_path(tmp_path: Path) -> None:
    """mlcroissant caches unpacked archives by name; two builds of one dataset must not share an archive."""
    for seed in (1, 2):
        directory = made(tmp_path / str(seed), "grey png", seed)
        found = croissant("croissant.json", tmp_path / "cache", cwd=directory)
        records = sorted(found["records"], key=lambda record: record["index"])
        assert [(record["pixels"], record["label"]) for record in records] == ours(directory)


def test_mlcroissant_refuses_an_altered_shard(tmp_path: Path) -> None:
    directory = made(tmp_path, "grey png")
    with (directory / "shards" / "tiny-000002.tar").open("ab") as shard:
        shard.write(b"\0" * 512)
    with pytest.raises(AssertionError, match="not identical"):
        croissant(str(directory / "croissant.json"), tmp_path / "cache")


def test_a_copy_elsewhere_is_still_a_dataset(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "copy")
    assert ours(tmp_path / "copy") == ours(directory)
    assert verify_dataset(str(tmp_path / "copy"), deep=True).ok


def test_s3_gives_the_same_samples(directory: Path, bucket: str, s3_settings: Any) -> None:
    source, target = open_store(str(directory)), open_store(f"{bucket}/tiny", s3_settings)
    for info in source.list():
        target.put(f"builds/{directory.name}/{info.key}", source.get(info.key))
    remote = open_dataset(f"{bucket}/tiny", s3=s3_settings)
    assert [(pixels_sha256(image), label) for image, label, _ in remote] == ours(directory)
    assert verify_dataset(f"{bucket}/tiny", s3_settings, deep=True).ok
