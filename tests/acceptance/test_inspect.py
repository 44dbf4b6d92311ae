"""The command ``latentmill inspect``: the diagnosis of one bundle, of two side by side, and the pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from generator.errors import SourceError, SpecError
from generator.models.bundle import save_bundle
from generator.models.latents.codes import Codes
from tests.support.bundles import tiny_bundle, tiny_contents

PICTURES = ("map", "centroids", "walks", "neighbours")


def inspect(*words: str, code: int = 0) -> Result:
    """The finished command, run in this process."""
    from workers.cli.main import root

    done = CliRunner().invoke(root, ["inspect", *words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``blue`` with 240 + 60 random codes in two dimensions, ``red`` with another decoder and four dimensions."""
    monkeypatch.chdir(tmp_path)
    contents = tiny_contents(dims=2)
    rng = np.random.default_rng(0)
    labels_N = np.arange(300) % 3
    codes_ND = rng.normal(size=(300, 2)) + 6.0 * np.stack([labels_N, labels_N % 2], axis=1)
    codes = Codes(codes_ND[:240], labels_N[:240], codes_ND[240:], labels_N[240:], contents.classes)
    save_bundle(tmp_path / "blue", replace(contents, codes=codes))
    tiny_bundle(tmp_path / "red", dims=4, seed=1)
    return tmp_path


def test_one_bundle_is_diagnosed_and_drawn(pair: Path) -> None:
    result = json.loads(inspect("blue", "--pictures", "pictures", "--json").stdout)
    found = result["diagnosis"]
    assert result["classes"] == ["cat", "dog", "owl"]
    assert found["verdict"]["kind"] == "clustered and convex"
    assert found["verdict"]["sampler"] in ("gaussian", "mixture")
    assert [facts["name"] for facts in found["samplers"]] == ["in the bundle", "gaussian", "mixture", "flow"]
    for name in PICTURES:
        with Image.open(pair / "pictures" / f"{name}.png") as picture:
            assert min(picture.size) > 100
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_two_bundles_side_by_side(pair: Path) -> None:
    result = inspect("blue", "red", "--quick", "--pictures", "pictures").stdout
    assert "blue is better to sample" in result or "red is better to sample" in result or "neither is better" in result
    assert "not measurable" in result  # six held-out codes are too few for most measures
    drawn = {path.name for path in (pair / "pictures").iterdir()}
    assert drawn == {f"{side}-{name}.png" for side in ("blue", "red") for name in PICTURES} | {"blue-red.png"}
    both = json.loads(inspect("blue", "red", "--quick", "--json").stdout)
    assert set(both) == {"blue", "red", "comparison"}


def test_bad_input_is_named(pair: Path) -> None:
    with pytest.raises(SourceError, match="the bundle's"):
        inspect("blue", "--source", "digits", "--no-diagnosis")
    (pair / "file").write_text("")
    with pytest.raises(SpecError, match="pictures: expected"):
        inspect("blue", "--no-diagnosis", "--pictures", "file/below")


@pytest.mark.parametrize(("dims", "classes"), [(1, ("cat", "dog", "owl")), (2, ()), (16, ())])
def test_any_small_bundle_is_told_and_drawn(
    dims: int, classes: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_bundle(tmp_path / "tiny", dims=dims, classes=classes)
    assert "is this latent space samplable?" in inspect("tiny", "--quick", "--pictures", "pictures").stdout
    assert len(list((tmp_path / "pictures").iterdir())) == 4


def test_the_facts_alone(pair: Path) -> None:
    assert "samplable" not in inspect("blue", "--no-diagnosis").stdout
