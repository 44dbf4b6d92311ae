"""The command sources, and options of sources in other commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from generator.errors import SourceError, SpecError
from generator.models.bundle import read_info
from generator.store import open_store
from tests.support import source_forms as forms
from workers.cli.main import root as command_line

PICTURES = forms.drawn(each=8)
Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATENTMILL_SOURCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LATENTMILL_SOURCE_CACHE_BYTES", str(2**24))

    def run(*words: object, code: int = 0) -> Result:
        done = CliRunner().invoke(command_line, [str(word) for word in words], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done

    return run


def facts(done: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_everything_that_a_person_wants_to_know_before(invoke: Invoke, tmp_path: Path) -> None:
    root = forms.as_folder(tmp_path / "pets" / "train", PICTURES)
    forms.as_folder(tmp_path / "pets" / "test", PICTURES[::8])
    forms.write(root / "cat" / "broken.png", b"text")
    forms.write(root / "cat" / "again.png", PICTURES[0].data)
    forms.write(root / "cat" / "drawing.svg", "<svg/>")
    found = facts(invoke("sources", "pets", "--json", "--picture", "sheet.png"))
    assert (found["kind"], found["images"], found["classes"]) == ("folder", 25, ["cat", "dog", "fox"])
    assert found["counts"] == {"cat": 9, "dog": 8, "fox": 8}
    assert (found["split"], found["splits"]) == ("train", ["train", "test"])
    assert found["sizes"] == [{"width": 20, "height": 16, "images": 25}]
    assert found["modes"] == {"RGB": 25}
    assert found["duplicates"] == 1
    assert [each["file"] for each in found["skipped"]] == ["pets/train/cat/broken.png"]
    assert found["passed_over"] == {"SVG drawings (.svg)": 1}
    assert found["fingerprint"].startswith("sha256:")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 300
    text = invoke("sources", "pets").output
    for words in (
        "cat 9, dog 8, fox 8",
        "20x16 (25)",
        "unreadable: pets/train/cat/broken.png",
        "--split reads another",
    ):
        assert words in text, text
    assert facts(invoke("sources", "pets", "--split", "test", "--json"))["images"] == 3


def test_images_of_several_sizes_and_no_labels(invoke: Invoke, tmp_path: Path) -> None:
    other = forms.drawn(("cat",), size=(30, 30))
    table = forms.as_parquet(tmp_path / "set.parquet", [*PICTURES, *other])
    text = invoke("sources", table).output
    assert "training needs --size" in text
    assert "20x16 (24), 30x30 (4)" in text
    found = facts(invoke("sources", table, "--label", "none", "--size", "32x24", "--json"))
    assert (found["classes"], found["counts"], found["read_as"]) == ([], {}, "32x24, colour")
    with pytest.raises(SourceError, match="Give a size"):
        invoke("train", table, "--out", "b")


@pytest.mark.slow
def test_a_training_says_what_it_reads_and_keeps_how(invoke: Invoke, tmp_path: Path) -> None:
    root = tmp_path / "deep"
    rng = np.random.default_rng(0)
    for label, level in (("dark", 500), ("light", 3000)):
        (root / label).mkdir(parents=True)
        for number in range(20):
            values = np.clip(rng.normal(level, 200, (12, 16)), 0, 4095).astype(np.uint16)
            Image.fromarray(values).save(root / label / f"{number}.png")
    (root / "light" / "0.png").write_bytes((root / "light" / "1.png").read_bytes())
    common = ("--model", "linear", "--latent-dim", "2", "--epochs", "1", "--judges", "0")
    done = invoke("train", root, "--out", "a", "--size", "16x12", *common, "--resize", "stretch")
    assert "4095 is white (12 bits)" in done.stderr
    _, info = read_info(open_store(str(tmp_path / "a")))
    assert info.source.reading.model_dump() == {"white": 4095.0, "resize": "stretch"}
    assert (info.image.width, info.image.height, info.image.channels) == (16, 12, 1)
    (root / "light" / "2.png").unlink()  # the largest values may be gone: the bundle's scale holds
    invoke("inspect", "a", "--no-diagnosis", "--pictures", "pictures")
    spec = {"bundle": str(tmp_path / "a"), "destination": str(tmp_path / "out"), "name": "near", "count": 4}
    draw = {"mode": "around", "image": str(root / "dark" / "3.png"), "distance": 0.1}
    forms.write(tmp_path / "near.json", json.dumps({**spec, "count": None, "counts": {"dark": 4}, "draw": draw}))
    assert facts(invoke("generate", tmp_path / "near.json", "--json"))["samples"] == 4


def test_class_names_that_yaml_reads_as_something_else(invoke: Invoke, tmp_path: Path) -> None:
    names = ("3", "no", "1e2", "null", "2024-01-01")
    root = forms.as_folder(tmp_path / "odd", forms.drawn(names, each=6, size=(8, 8)))
    common = ("--model", "linear", "--latent-dim", "2", "--epochs", "1", "--judges", "0")
    invoke("train", root, "--out", "odd.bundle", "--size", "8", *common)
    counts = "{3: 1, no: 2, 1e2: 3, null: 4, 2024-01-01: 5}"
    forms.write(tmp_path / "odd.yaml", f"bundle: odd.bundle\ndestination: out\nname: odd\ncounts: {counts}\n")
    assert facts(invoke("generate", "odd.yaml", "--json"))["samples"] == 15
    forms.write(tmp_path / "twice.yaml", "bundle: b\ndestination: out\nname: odd\ncounts: {3: 1, '3': 2}\n")
    with pytest.raises(SpecError, match="each key once"):
        invoke("generate", "twice.yaml")


def test_the_second_command_decodes_nothing(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forms.as_tars(tmp_path / "shards", PICTURES)
    first = facts(invoke("sources", "shards/*.tar", "--json"))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr("generator.sources.load.decode_images", refuse)
    assert facts(invoke("sources", "shards/*.tar", "--json")) == first
