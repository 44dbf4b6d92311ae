"""Small pictures of real images in a bundle: off by default, in the rows of the codes, bounded, checked when read."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generator.errors import BundleError
from generator.models.autoencoders.config import VaeConfig
from generator.models.autoencoders.factory import load_decoder, load_encoder
from generator.models.autoencoders.inference import reconstruct
from generator.models.autoencoders.settings import TrainSettings
from generator.models.bundle import load_bundle, load_codes, load_encoder_weights, read_info, save_bundle
from generator.models.bundle import thumbnails as module
from generator.models.bundle.load import load_reconstructions, load_thumbnails
from generator.models.bundle.reconstructions import (
    MAX_PAIRS,
    choose_pairs,
    make_reconstructions,
    parse_reconstructions,
)
from generator.models.bundle.thumbnails import Thumbnails, make_thumbnails, parse_thumbnails
from generator.models.latents.config import GaussianSettings
from generator.models.learning.refit import refit
from generator.models.learning.train import train_bundle
from generator.production.images import is_marked_synthetic
from generator.sources import Source, load_source, split
from generator.store import open_store
from tests.support.bundles import tiny_contents


def pixels(data: bytes | None) -> np.ndarray:
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@pytest.mark.slow
def test_a_trained_bundle_keeps_them_in_the_rows_of_its_codes(tmp_path: Path) -> None:
    source = load_source("digits", size=8)
    config, settings = VaeConfig(size=8, channels=1, latent_dim=4, width=8), TrainSettings(epochs=1)
    train_bundle(source, config, settings, tmp_path / "plain", sampler=GaussianSettings())
    train_bundle(source, config, settings, tmp_path / "kept", sampler=GaussianSettings(), keep_thumbnails=True)
    plain, kept = (read_info(open_store(str(tmp_path / name)))[1] for name in ("plain", "kept"))
    assert set(kept.files) - set(plain.files) == {"thumbnails.safetensors", "reconstructions.safetensors"}
    assert set(plain.files) <= set(kept.files)
    assert all(plain.files[name] == kept.files[name] for name in plain.files)
    check_reconstructions(tmp_path / "kept", source)
    assert load_thumbnails(open_store(str(tmp_path / "plain")), plain) is None
    thumbnails = load_thumbnails(open_store(str(tmp_path / "kept")), kept)
    assert thumbnails is not None
    codes = load_codes(open_store(str(tmp_path / "kept")), kept)
    train_N = split(len(source), source.labels_N, holdout=settings.holdout, seed=settings.seed).train_N
    assert thumbnails.rows_T.tolist() == list(range(len(codes.codes_ND)))
    for row in (0, 17, len(train_N) - 1):
        shown_HW, real_HW = pixels(thumbnails.find(row)), source.images_NHWC[train_N[row]][:, :, 0]
        assert np.abs(shown_HW.astype(int) - real_HW.astype(int)).mean() < 12.0
    assert not is_marked_synthetic(thumbnails.find(0) or b"")
    refit(open_store(str(tmp_path / "kept")), GaussianSettings(), tmp_path / "again")
    again = open_store(str(tmp_path / "again"))
    assert load_thumbnails(again, read_info(again)[1]) is not None
    assert load_reconstructions(again, read_info(again)[1]) is not None


def check_reconstructions(directory: Path, source: Source) -> None:
    """They are the held-out images of every class, beside what encoder and decoder make of them."""
    store = open_store(str(directory))
    info = read_info(store)[1]
    pairs = load_reconstructions(store, info)
    assert pairs is not None
    assert len(pairs) == MAX_PAIRS
    assert set(pairs.labels_P.tolist()) == set(range(10))
    holdout_N = split(len(source), source.labels_N, holdout=TrainSettings().holdout, seed=0).holdout_N
    weights, decoder = load_encoder_weights(store, info), load_bundle(store).decoder
    encoder = load_encoder(info.autoencoder, {name: torch.from_numpy(each) for name, each in weights.items()})
    network = load_decoder(info.autoencoder, {name: torch.from_numpy(each) for name, each in decoder.items()})
    real_NHWC = source.images_NHWC[holdout_N]
    made_NHWC = reconstruct(encoder, network, real_NHWC)
    for number in (0, 20, MAX_PAIRS - 1):
        shown_HW, decoded_HW = (pixels(each).astype(int) for each in pairs.pair(number))
        far_N = np.abs(real_NHWC[..., 0].astype(int) - shown_HW).mean(axis=(1, 2))
        row = int(far_N.argmin())
        assert far_N[row] < 12.0
        assert source.labels_N is not None
        assert source.labels_N[holdout_N[row]] == pairs.labels_P[number]
        assert np.abs(decoded_HW - made_NHWC[row, :, :, 0]).mean() < 12.0
        error = float((((real_NHWC[row] - made_NHWC[row].astype(float)) / 255.0) ** 2).mean())
        assert pairs.errors_P[number] == pytest.approx(error, rel=1e-3, abs=1e-5)


def test_pairs_are_those_of_every_class_in_turn() -> None:
    labels_H = np.array([2, 2, 2, 0, 1, 0] + [1] * 100)
    chosen = choose_pairs(labels_H, len(labels_H))
    assert len(chosen) == MAX_PAIRS
    assert labels_H[chosen].tolist() == sorted(labels_H[chosen].tolist())
    assert np.bincount(labels_H[chosen]).tolist() == [2, MAX_PAIRS - 5, 3]
    assert choose_pairs(None, 3).tolist() == [0, 1, 2]
    assert len(choose_pairs(np.arange(200), 200)) == MAX_PAIRS


def test_damaged_reconstructions_are_refused() -> None:
    images = np.full((3, 8, 8, 1), 7, dtype=np.uint8)
    good = make_reconstructions(images, images, np.array([0, 1, 1])).tensors()
    assert len(parse_reconstructions(good, 2)) == 3
    assert parse_reconstructions(make_reconstructions(images, images, None).tensors(), 0).labels_P.tolist() == [-1] * 3
    wrong: list[dict[str, Any]] = [
        {"labels": np.array([0, 1, 2])},
        {"labels": np.array([-1, 1, 1])},
        {"labels": np.array([0, 1])},
        {"errors": np.zeros(2, dtype=np.float32)},
        {"real.rows": np.array([0, 1, 3])},
        {"decoded.ends": good["decoded.ends"][:2]},
        {"more": np.zeros(1)},
    ]
    for change in wrong:
        with pytest.raises(BundleError, match="reconstructions"):
            parse_reconstructions({**good, **change}, 2)
    for name in good:
        with pytest.raises(BundleError, match="reconstructions"):
            parse_reconstructions({key: each for key, each in good.items() if key != name}, 2)


def test_large_images_become_small_and_keep_their_shape() -> None:
    thumbnails = make_thumbnails(np.full((3, 100, 200, 3), 90, dtype=np.uint8))
    assert pixels(thumbnails.find(2)).shape == (32, 64, 3)
    assert thumbnails.find(3) is None
    assert thumbnails.find(-1) is None


def test_many_images_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), dtype=np.uint8)
    whole = make_thumbnails(images)
    monkeypatch.setattr(module, "MAX_PICTURES", 10)
    assert make_thumbnails(images).rows_T.tolist() == list(range(0, 40, 4))
    monkeypatch.setattr(module, "MAX_BYTES", len(whole.data) // 8)
    few = make_thumbnails(images)
    assert 0 < len(few.data) <= len(whole.data) // 8
    assert all(few.find(row) == whole.find(row) for row in few.rows_T.tolist())


@pytest.mark.parametrize(
    "change",
    [
        {"rows": np.array([0, 0, 1])},
        {"ends": np.array([5, 4, 9])},
        {"ends": np.array([3, 6, 8])},
        {"rows": np.array([0, 1])},
        {"data": np.zeros(9, dtype=np.int64)},
        {"rows": np.zeros(0, dtype=np.int64), "ends": np.zeros(0, dtype=np.int64)},
    ],
)
def test_damaged_ones_are_refused(change: dict[str, Any]) -> None:
    whole = {"rows": np.arange(3), "ends": np.array([3, 6, 9]), "data": np.zeros(9, dtype=np.uint8)}
    assert parse_thumbnails(whole).find(1) == bytes(3)
    with pytest.raises(BundleError, match=r"^thumbnails.safetensors"):
        parse_thumbnails(whole | change)


def test_a_bundle_whose_pictures_were_altered_does_not_load(tmp_path: Path) -> None:
    pictures = Thumbnails(np.arange(2), np.array([1, 2]), np.zeros(2, dtype=np.uint8))
    save_bundle(tmp_path / "b", replace(tiny_contents(), thumbnails=pictures))
    load_bundle(open_store(str(tmp_path / "b")))
    path = tmp_path / "b" / "thumbnails.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"^thumbnails.safetensors"):
        load_bundle(open_store(str(tmp_path / "b")))
