"""C2PA manifests of exported images: valid, bound to the file, beside the mark; credentials that do not fit."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generator.datasets.exports import Credentials, export_build
from generator.datasets.torch_dataset import open_dataset
from generator.errors import KeyFileError, LatentmillError, SpecError
from generator.production.images import is_marked_synthetic, marked_build
from generator.spec.recipe import ImageSettings, JpegSettings, PngSettings
from tests.support.certificates import written_credentials
from tests.support.small_builds import SmallBuild


@pytest.fixture
def build(tmp_path: Path) -> Path:
    return committed(tmp_path, PngSettings())


def committed(home: Path, image: ImageSettings) -> Path:
    location, _ = SmallBuild(published="2026-03-01", image=image, size=16).commit(str(home))
    return Path(location.url.removeprefix("file://"))


@pytest.mark.parametrize("image", ["png", "jpeg"])
def test_signed_images_hold_a_valid_c2pa_manifest_and_their_own_mark(image: str, tmp_path: Path) -> None:

    c2pa = pytest.importorskip("c2pa")

    build = committed(tmp_path, JpegSettings() if image == "jpeg" else PngSettings())
    found = export_build(str(build), "hf-folder", tmp_path / "out", credentials=written_credentials(tmp_path))
    assert export_build(str(build), "hf-folder", tmp_path / "out", credentials=written_credentials(tmp_path)).existed
    samples = {sample.provenance["key"]: sample.image for sample in open_dataset(str(build))}
    files = {
        path.stem: path.read_bytes() for path in (tmp_path / "out").rglob(f"*.{'jpg' if image == 'jpeg' else 'png'}")
    }
    assert len(files) == found.samples == 13
    for key, data in files.items():
        with c2pa.Reader(f"image/{image}", io.BytesIO(data)) as reader:
            document = json.loads(reader.json())
        active = document["manifests"][document["active_manifest"]]
        assertions = {each["label"]: each["data"] for each in active["assertions"]}
        assert assertions["c2pa.actions.v2"]["actions"][0]["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
        assert assertions["org.latentmill.build"]["build"] == found.build
        codes = {status["code"] for status in document.get("validation_status", [])}
        assert codes <= {"signingCredential.untrusted"}  # the authority of this test is on no list
        with Image.open(io.BytesIO(data)) as opened:
            np.testing.assert_array_equal(np.asarray(opened).reshape(samples[key].shape), samples[key])
        assert is_marked_synthetic(data)
        assert marked_build(data) == found.build
    key, data = next(iter(files.items()))
    with c2pa.Reader(f"image/{image}", io.BytesIO(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])) as reader:
        assert "validation_status" in json.loads(reader.json())


def test_credentials_that_do_not_fit_are_typed_errors(build: Path, tmp_path: Path) -> None:
    pytest.importorskip("c2pa")
    good = written_credentials(tmp_path)
    (tmp_path / "text").write_text("no key")
    wrong: list[tuple[Credentials, type[LatentmillError]]] = [
        (Credentials(good.certificates, tmp_path / "text"), KeyFileError),
        (Credentials(tmp_path / "absent", good.key), KeyFileError),
        (Credentials(good.key, good.certificates), LatentmillError),
    ]
    for credentials, error in wrong:
        with pytest.raises(error):
            export_build(str(build), "hf-folder", tmp_path / "out", credentials=credentials)
        assert not (tmp_path / "out").exists()
    with pytest.raises(SpecError, match="hf-folder"):
        export_build(str(build), "mds", tmp_path / "out", credentials=good)


def test_a_certificate_that_c2pa_refuses_is_named_before_images_are_written(build: Path, tmp_path: Path) -> None:
    pytest.importorskip("c2pa")
    bad = written_credentials(tmp_path, usage=False)
    with pytest.raises(LatentmillError):
        export_build(str(build), "hf-folder", tmp_path / "out", credentials=bad)
    assert not (tmp_path / "out").exists()
