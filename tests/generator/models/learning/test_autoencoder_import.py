"""An imported autoencoder and images become a bundle that builds, replays and refits; decoders are trained further."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from generator.datasets.replay import replay
from generator.datasets.torch_dataset import open_dataset
from generator.datasets.verification import verify_dataset
from generator.drafts import parse_draft, resolve_draft
from generator.errors import BundleError, SourceError, SpecError
from generator.models.autoencoders.settings import TrainSettings
from generator.models.bundle import Bundle, load_bundle
from generator.models.converters.builder import BuiltGraph, GraphBuilder
from generator.models.converters.diffusers import convert_diffusers
from generator.models.features.config import Budget
from generator.models.latents.config import GaussianSettings, MixtureSettings, PriorSettings, TransportSettings
from generator.models.learning import (
    ImportedNetwork,
    TrainingCallbacks,
    encode_source,
    import_network,
    join_graphs,
    refit,
    train,
)
from generator.models.learning.decoder_import import ImportedCodes
from generator.models.screening.config import JudgeSettings
from generator.production.commit import locate_build
from generator.production.mill import build
from generator.sources import Source
from generator.sources.base import make_source
from generator.store import open_store
from tests.support.foreign_networks import kl_autoencoder, tiny_autoencoder

pytestmark = pytest.mark.slow
SIZE = 32
BASE = TransportSettings(map=None)


def stripes(count: int = 120, *, labelled: bool = True) -> Source:
    """Vertical and horizontal stripes of random colours and phases."""
    rng = np.random.default_rng(0)
    labels_N, position = np.arange(count) % 2, np.arange(SIZE)
    phase, colour = rng.uniform(0, 6, (count, 1)), rng.uniform(80, 255, (count, 1, 1, 3))
    wave_NS = 0.5 + 0.5 * np.sin(position / 3.0 + phase)
    plane_NHW = np.where(labels_N[:, None, None] == 0, wave_NS[:, None, :], wave_NS[:, :, None])
    images_NHWC = (plane_NHW[..., None] * colour).astype(np.uint8)
    names = ("across", "down") if labelled else ()
    return make_source(images_NHWC, labels_N if labelled else None, names, name="stripes")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ImportedNetwork:
    directory = tmp_path_factory.mktemp("tiny")
    tiny_autoencoder(3, 8).save_pretrained(directory)
    return join_graphs(*convert_diffusers(directory, SIZE))


def load(path: Path) -> Bundle:
    return load_bundle(open_store(str(path)))


def made(bundle: Path, destination: Path, **fields: Any) -> str:
    """The URL of a verified dataset of 60 images."""
    draft = {"bundle": str(bundle), "destination": str(destination), "name": "made", "count": 60, "shard_size": 30}
    spec, store = resolve_draft(parse_draft(draft | fields))
    location = locate_build(spec)
    build(location, load_bundle(store), device="cpu")
    assert verify_dataset(location.url, deep=True).problems == ()
    return location.url


def test_images_become_codes_and_a_bundle_that_builds(tiny: ImportedNetwork, tmp_path: Path) -> None:
    encoded, judge = list[int](), JudgeSettings(budget={"steps": 20}, members=1)  # type: ignore[arg-type]
    result = encode_source(
        tiny,
        stripes(),
        tmp_path / "bundle",
        sampler=BASE,
        settings=TrainSettings(),
        judge=judge,
        callbacks=TrainingCallbacks(on_encode=lambda done, total: encoded.append(done * 1000 + total)),
    )
    assert encoded[-1] == 120 * 1000 + 120
    bundle = load(tmp_path / "bundle")
    assert bundle.digest == result.digest
    assert (result.trained_on, result.held_out, result.history) == (108, 12, ())
    assert bundle.info.classes == ("across", "down")
    assert bundle.info.training_facts.history == ()
    assert bundle.info.judge is not None
    assert bundle.read_codes is not None
    assert bundle.read_codes().shape == (4, 8, 8)
    assert bundle.code_map is not None
    url = made(tmp_path / "bundle", tmp_path / "datasets", label_floor=None, novelty_floor=None)
    assert replay(url, 7, bundle).identical
    assert len(list(open_dataset(url))) == 60
    refitted = refit(open_store(str(tmp_path / "bundle")), GaussianSettings(covariance="diagonal"), tmp_path / "other")
    assert load(tmp_path / "other").info.autoencoder == bundle.info.autoencoder
    assert refitted.before == bundle.digest


def test_two_imports_are_equal(tiny: ImportedNetwork, tmp_path: Path) -> None:
    digests = {
        encode_source(tiny, stripes(), tmp_path / name, sampler=BASE, settings=TrainSettings(seed=seed)).digest
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    }
    assert len(digests) == 2


def test_a_decoder_trained_further_is_nearer_to_the_images(tiny: ImportedNetwork, tmp_path: Path) -> None:
    settings = TrainSettings(epochs=6, batch=16, reconstruction="mse", learning_rate=2e-2)
    plain = encode_source(tiny, stripes(), tmp_path / "plain", sampler=BASE, settings=settings)
    tuned = encode_source(tiny, stripes(), tmp_path / "tuned", sampler=BASE, settings=settings, finetune=True)
    assert tuned.reconstruction_error < 0.7 * plain.reconstruction_error
    assert len(tuned.history) == 6
    before, after = load(tmp_path / "plain"), load(tmp_path / "tuned")
    assert before.info.files["encoder.safetensors"] == after.info.files["encoder.safetensors"]
    assert before.info.files["codes.safetensors"] == after.info.files["codes.safetensors"]
    assert before.info.files["decoder.safetensors"] != after.info.files["decoder.safetensors"]


def test_a_decoder_tuned_on_sampled_codes_replaces_the_one_that_was_imported(
    tiny: ImportedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "FEATURE_BUDGET", Budget(steps=2))
    steps = list[tuple[int, int]]()
    settings = TrainSettings(feature_loss=10.0, tuning_steps=3)
    common: dict[str, Any] = {"sampler": BASE, "callbacks": TrainingCallbacks(on_tune=lambda *at: steps.append(at))}
    encode_source(tiny, stripes(), tmp_path / "plain", sampler=BASE, settings=TrainSettings())
    digests = {encode_source(tiny, stripes(), tmp_path / each, settings=settings, **common).digest for each in "ab"}
    assert len(digests) == 1
    assert steps == [(1, 3), (2, 3), (3, 3)] * 2
    plain, tuned = load(tmp_path / "plain"), load(tmp_path / "a")
    for part in ("encoder", "codes", "latents"):
        assert plain.info.files[f"{part}.safetensors"] == tuned.info.files[f"{part}.safetensors"]
    assert plain.info.files["decoder.safetensors"] != tuned.info.files["decoder.safetensors"]
    assert made(tmp_path / "a", tmp_path / "datasets", label_floor=None, novelty_floor=None)


@pytest.mark.parametrize("changes", [{"feature_loss": 0.0}, {"labelled": False}])
def test_tuning_without_labels_or_feature_loss_is_refused_before_any_work(
    tiny: ImportedNetwork, tmp_path: Path, changes: dict[str, Any]
) -> None:
    settings = TrainSettings(feature_loss=changes.get("feature_loss", 10.0), tuning_steps=3)
    with pytest.raises(SpecError) as refused:
        encode_source(
            tiny, stripes(labelled=changes.get("labelled", True)), tmp_path / "a", sampler=BASE, settings=settings
        )
    assert refused.value.field == "train.tuning_steps"
    assert not (tmp_path / "a").exists()


class Stop(Exception):
    pass


def test_training_goes_on_after_a_stop(tiny: ImportedNetwork, tmp_path: Path) -> None:
    settings = TrainSettings(epochs=3, batch=32, reconstruction="mse")

    def stop(record: Any) -> None:
        if record.epoch == 2:
            raise Stop

    common: dict[str, Any] = {"sampler": BASE, "settings": settings, "finetune": True}
    whole = encode_source(tiny, stripes(), tmp_path / "whole", **common)
    with pytest.raises(Stop):
        encode_source(tiny, stripes(), tmp_path / "stopped", **common, callbacks=TrainingCallbacks(on_epoch=stop))
    assert not (tmp_path / "stopped").exists()
    steps = list[int]()
    listening = TrainingCallbacks(on_step=lambda at: steps.append(at.epoch))
    resumed = encode_source(tiny, stripes(), tmp_path / "stopped", **common, callbacks=listening)
    assert set(steps) == {3}
    assert resumed.digest == whole.digest
    assert not list(tmp_path.glob("*.checkpoint*"))


def test_attention_and_group_norms_keep_the_laws(tmp_path: Path) -> None:
    kl_autoencoder((8, 16)).save_pretrained(tmp_path / "vae")
    network = join_graphs(*convert_diffusers(tmp_path / "vae", SIZE))
    encode_source(network, stripes(), tmp_path / "bundle", sampler=BASE, settings=TrainSettings())
    first = made(tmp_path / "bundle", tmp_path / "one", batch=60, novelty_floor=None)
    second = made(tmp_path / "bundle", tmp_path / "two", batch=60, novelty_floor=None)
    images = [[image for image, *_ in open_dataset(url)] for url in (first, second)]
    assert all(np.array_equal(one, two) for one, two in zip(*images, strict=True))
    assert replay(first, 31, load(tmp_path / "bundle")).identical


def test_without_labels(tiny: ImportedNetwork, tmp_path: Path) -> None:
    encode_source(tiny, stripes(labelled=False), tmp_path / "bundle", sampler=BASE, settings=TrainSettings())
    assert load(tmp_path / "bundle").info.classes == ()


def test_what_does_not_fit(tiny: ImportedNetwork, tmp_path: Path) -> None:
    common: dict[str, Any] = {"sampler": BASE, "settings": TrainSettings()}
    small = make_source(np.zeros((20, 16, 16, 3), np.uint8), None, (), name="small")
    with pytest.raises(SourceError, match="images of 32 pixels and 3 channels, got 16 pixels and 3 channels"):
        encode_source(tiny, small, tmp_path / "bundle", **common)
    decoder_alone = replace(tiny, config=tiny.config.model_copy(update={"encoder": None}), encoder=None)
    with pytest.raises(SpecError, match=r"encode: expected a network with an encoder"):
        encode_source(decoder_alone, stripes(), tmp_path / "bundle", **common)
    with pytest.raises(SpecError, match=r"train.reconstruction"):
        encode_source(tiny, stripes(), tmp_path / "bundle", **common, finetune=True)
    assert tiny.encoder is not None
    huge = {name: weight * 1e30 for name, weight in tiny.encoder.items()}
    with pytest.raises(SpecError, match=r"encoder: expected finite codes, got NaN or infinity"):
        encode_source(replace(tiny, encoder=huge), stripes(), tmp_path / "bundle", **common)
    (tmp_path / "there").mkdir()
    with pytest.raises(BundleError, match="exists"):
        encode_source(tiny, stripes(), tmp_path / "there", **common)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]


def class_generator(classes: int = 3) -> BuiltGraph:
    """Noise gives the brightness of 8 x 8 pixels, the class their colour."""
    from generator.models.autoencoders.graphs.operations import Binary, Embedding

    builder = GraphBuilder("decoder", code=(64,), label=())
    table = np.eye(classes, 3, dtype=np.float32)
    colour = builder.add(Embedding, "label", tensors={"weight": table}, classes=classes, features=3)
    light = builder.reshape(builder.activation("code", "sigmoid"), 1, 8, 8)
    return builder.finish(builder.add(Binary, builder.reshape(colour, 3, 1, 1), light, op="mul"))


@pytest.mark.parametrize("truncation", [None, 0.5])
def test_a_generator_of_classes_draws_the_class_that_is_asked_for(truncation: float | None, tmp_path: Path) -> None:
    network = join_graphs(None, class_generator(), 3)
    prior = PriorSettings(truncation=truncation)
    result = import_network(network, None, tmp_path / "bundle", sampler=prior, class_names=("red", "green", "blue"))
    assert [notice.split(" of ")[0] for notice in result.notices] == ["67%"]  # two of three channels are black
    bundle = load(tmp_path / "bundle")
    assert bundle.info.classes == ("red", "green", "blue")
    draws_BD = bundle.latents.sample(
        bundle.latents.to_noise(np.zeros((2, 64)), np.zeros(2, int)), np.zeros(2, int)
    ).z_BD
    assert np.abs(draws_BD).max() < 1e-9
    url = made(tmp_path / "bundle", tmp_path / "datasets", counts={"red": 10, "blue": 50}, count=None)
    levels = list[int]()
    for image, label, *_ in open_dataset(url):
        channel = {"red": 0, "blue": 2}[bundle.info.classes[label]]
        others = [each for each in range(3) if each != channel]
        assert image[..., others].max() == 0
        levels += image[..., channel].reshape(-1).tolist()
    limit = 255 if truncation is None else 255 / (1 + np.exp(-truncation))
    assert len(set(levels)) > (200 if truncation is None else 50)
    assert max(levels) <= np.ceil(limit)
    assert replay(url, 20, bundle).identical


def test_names_and_codes_of_a_generator(tmp_path: Path) -> None:
    network, prior = join_graphs(None, class_generator(), 3), PriorSettings()
    import_network(network, None, tmp_path / "numbers", sampler=prior)
    assert load(tmp_path / "numbers").info.classes == ("0", "1", "2")
    with pytest.raises(SpecError, match="class_names: expected 3 names"):
        import_network(network, None, tmp_path / "bundle", sampler=prior, class_names=("red", "green"))
    codes_ND = np.random.default_rng(0).normal(size=(200, 64))
    codes = ImportedCodes("two.npz", codes_ND, np.arange(200) % 2, ("red", "green"))
    with pytest.raises(SpecError, match="codes: expected 3 classes"):
        import_network(network, codes, tmp_path / "bundle", sampler=MixtureSettings(clusters=1))
    assert not (tmp_path / "bundle").exists()


def test_codes_of_a_file_for_a_graph(tiny: ImportedNetwork, tmp_path: Path) -> None:
    codes = ImportedCodes("codes.npz", np.random.default_rng(0).normal(size=(100, 256)).astype(np.float32))
    import_network(tiny, codes, tmp_path / "bundle", sampler=BASE)
    bundle = load(tmp_path / "bundle")
    assert bundle.info.training is None
    assert bundle.read_codes is not None
    assert bundle.read_codes().shape == (4, 8, 8)
    with pytest.raises(SpecError, match=r"codes: expected floats of shape .N, 256."):
        import_network(tiny, replace(codes, codes_ND=codes.codes_ND[:, :5]), tmp_path / "other", sampler=BASE)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
