"""Oblong images through everything: trained or imported, built, verified, read, replayed, measured and drawn."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generator.curation.diagnosis.contact_sheet import SheetRow, sheet_png
from generator.curation.quality.report import MeasureSettings, measure
from generator.curation.quality.subject import load_subject
from generator.datasets.replay import replay
from generator.datasets.torch_dataset import open_dataset
from generator.datasets.verification import verify_dataset
from generator.errors import BundleError, SourceError
from generator.models.autoencoders.config import FAMILIES, default_config
from generator.models.autoencoders.settings import TrainSettings
from generator.models.bundle import Bundle, load_bundle
from generator.models.bundle.load import parse_info, read_info_bytes
from generator.models.features.config import Budget
from generator.models.latents.config import GaussianSettings, TransportSettings
from generator.models.learning import encode_source, pretrained_network, refit, train_bundle
from generator.models.screening.config import JudgeSettings
from generator.production.commit import locate_build
from generator.production.decoding import ResidentDecoder
from generator.production.mill import build
from generator.production.provenance.manifest import Manifest
from generator.sources import Source
from generator.sources.base import make_source
from generator.spec.image_size import ImageSize
from generator.spec.recipe import JobSpec, Order, Recipe
from generator.store import open_store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

JUDGE = JudgeSettings(width=4, budget=Budget(steps=2, batch=8))
SIZES = {"stacked": ImageSize(33, 47), "spatial": ImageSize(33, 47), "pretrained": ImageSize(47, 33)}
USUAL = ImageSize(width=28, height=50)
TINY_MODEL = {"linear": {}, "spatial": {"width": 8, "feature_steps": 1}}


def blobs(count: int, size: ImageSize, channels: int = 1) -> Source:
    """Images of one bright rectangle; in the second class it is higher than wide."""
    rng, images_NHWC = np.random.default_rng(0), np.full((count, size.height, size.width, channels), 20, np.uint8)
    for number, image_HWC in enumerate(images_NHWC):
        top, left = (int(place) for place in rng.integers(2, 16, 2))
        height, width = (12, 6) if number % 2 else (6, 12)
        image_HWC[top : top + height, left : left + width] = 120 + int(rng.integers(0, 120))
    return make_source(images_NHWC, np.arange(count) % 2, ("flat", "high"), name="blobs")


@dataclass(frozen=True, eq=False)
class Made:
    size: ImageSize
    source: Source
    path: Path
    bundle: Bundle
    url: str
    manifest: Manifest


def make(directory: Path, family: str, count: int = 40, **recipe: object) -> Made:
    """A bundle of few steps, and a build of eleven images."""
    size, path, screening = SIZES.get(family, USUAL), directory / "bundle", {"label_floor": 0.001}
    settings = TrainSettings(epochs=10, batch=8, learning_rate=2e-2, holdout=0.4, reconstruction="mse", device="cpu")
    if family == "pretrained":
        source = blobs(count, size, channels=3)
        network, sampler, screening = pretrained_network(size, 3), TransportSettings(map=None), {}
        encode_source(network, source, path, sampler=sampler, settings=settings)
    else:
        source, options = blobs(count, size), TINY_MODEL.get(family, {"width": 4, "latent_dim": 5})
        config = default_config(size, 1, family, **options)
        sampler = TransportSettings(map=None) if family == "spatial" else GaussianSettings(covariance="diagonal")
        train_bundle(source, config, settings, path, sampler=sampler, judge=JUDGE)  # type: ignore[arg-type]
    bundle = load_bundle(open_store(str(path)))
    fields = {"bundle": bundle.digest, "classes": bundle.info.classes, "counts": (6, 5), "shard_size": 6, "batch": 8}
    spec = JobSpec(
        recipe=Recipe.model_validate(fields | screening | recipe),
        order=Order(destination=str(directory / "builds"), name="oblong"),
    )
    location = locate_build(spec)
    return Made(size, source, path, bundle, location.url, build(location, bundle, device="cpu"))


@pytest.fixture(scope="module", params=[*FAMILIES, "pretrained"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def screened(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """With a copy check, which needs a hundred held-out images; JPEG."""
    return make(tmp_path_factory.mktemp("screened"), "vae", 260, novelty_floor=0.001, image={"format": "jpeg"})


def test_builds_are_intact_and_come_back_in_size_from_every_reader(made: Made) -> None:
    width, height = made.size
    assert (made.bundle.info.image.height, made.bundle.info.image.width) == (height, width)
    assert (made.manifest.image.height, made.manifest.image.width) == (height, width)
    assert verify_dataset(made.url, deep=True).problems == ()
    samples = list(open_dataset(made.url))
    assert len(samples) == 11
    assert {image.shape for image, _, _ in samples} == {(height, width, made.source.channels)}


def test_a_replayed_image_is_the_stored_one(made: Made) -> None:
    again = replay(made.url, 7, made.bundle, device="cpu")
    assert again.identical
    with Image.open(io.BytesIO(again.data)) as image:
        assert image.size == made.size


def test_a_row_does_not_depend_on_its_place_in_the_batch(made: Made) -> None:
    decoder = ResidentDecoder(made.bundle, batch=16, dtype="float32", device="cpu")
    z_BD = np.random.default_rng(1).normal(size=(16, made.bundle.latents.dims)).astype(np.float32)
    labels_B = np.arange(16) % 2
    whole = decoder.decode(z_BD, labels_B)
    assert whole.std() > 0.0
    for rows in (np.arange(3), np.arange(16)[::-1], np.roll(np.arange(16), 5), np.array([7])):
        assert np.array_equal(decoder.decode(z_BD[rows], labels_B[rows]), whole[rows])


def test_everything_beside_the_images_says_their_size(screened: Made) -> None:
    store = open_store(screened.url)
    assert b"50 x 28 pixels" in store.get("README.md", 2**20)
    assert "50 x 28 pixels" in json.loads(store.get("croissant.json", 2**20))["description"]
    with Image.open(io.BytesIO(store.get("preview.jpg", 2**24))) as preview:
        row = 2 * 50 + 8  # cells are whole multiples, of 48 pixels or more, as high as their images are
        assert preview.width > 6 * 28
        assert preview.height < 2 * row
    assert verify_dataset(screened.url, deep=True).problems == ()


def test_a_copy_index_and_a_judge_are_part_of_the_bundle_and_of_a_refitted_one(screened: Made, tmp_path: Path) -> None:
    assert screened.bundle.screening.copy_index is not None
    assert screened.bundle.info.judge == JUDGE
    refit(open_store(str(screened.path)), GaussianSettings(), tmp_path / "again")
    assert load_bundle(open_store(str(tmp_path / "again"))).info.image == screened.bundle.info.image


def test_measures_and_pictures(screened: Made) -> None:
    subject = load_subject(screened.url, screened.source, screened.bundle.info)
    report = measure(subject, MeasureSettings(seeds=1, limit=10, budget=Budget(steps=2, batch=8)))
    assert report.novelty is not None
    assert report.usefulness is not None
    rows = [SheetRow(name, [[*screened.source.images_NHWC[:3]], [*screened.source.images_NHWC[3:5]]]) for name in "ab"]
    with Image.open(io.BytesIO(sheet_png(rows, ""))) as sheet:  # of images that are enlarged by nothing
        pixels = np.asarray(sheet.convert("L"))
    cells = (pixels == 20).sum()
    assert cells == sum(int((image == 20).sum()) for image in screened.source.images_NHWC[:5]) * 2
    turned = make_source(screened.source.images_NHWC.transpose(0, 2, 1, 3), None, (), name="turned")
    with pytest.raises(SourceError, match="the images behind the dataset"):
        load_subject(screened.url, turned, screened.bundle.info)


def test_images_of_another_shape_are_refused(screened: Made, tmp_path: Path) -> None:
    turned = blobs(40, ImageSize(width=50, height=28))
    with pytest.raises(SourceError, match=r"uint8 of shape \(N, 50, 28, 1\), got uint8 of shape \(36, 28, 50, 1\)"):
        train_bundle(turned, screened.bundle.info.autoencoder, TrainSettings(epochs=1, device="cpu"), tmp_path / "b")
    network = pretrained_network((40, 32), 3)
    with pytest.raises(SourceError, match="images of 40x32 pixels and 3 channels, got 32x40 pixels and 3 channels"):
        encode_source(
            network,
            blobs(40, ImageSize(width=32, height=40), channels=3),
            tmp_path / "c",
            sampler=GaussianSettings(),
            settings=TrainSettings(),
        )


def test_a_bundle_whose_sides_disagree_is_refused(screened: Made) -> None:
    document = json.loads(read_info_bytes(open_store(str(screened.path))))
    document["image"] |= {"height": 28, "width": 50}
    with pytest.raises(BundleError, match="must agree with the bundle's"):
        parse_info(json.dumps(document).encode())
