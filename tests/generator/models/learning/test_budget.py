"""A time budget becomes step counts: more time never means less training, and the plan is what is trained."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from generator.errors import SpecError
from generator.models.autoencoders.config import SpatialConfig
from generator.models.autoencoders.settings import TrainSettings
from generator.models.bundle import read_info
from generator.models.latents.config import MixtureSettings, TransportSettings
from generator.models.learning import budget, defaults, plan_training, recommended_model, recommended_settings
from generator.models.screening.config import default_judge
from generator.sources import Source
from generator.store import open_store
from workers.cli.main import root

pytestmark = pytest.mark.usefixtures("one_thread")


def colours(count: int, size: int = 32) -> Source:
    """Two classes of noisy images: reddish and bluish."""
    rng, labels_N = np.random.default_rng(0), np.arange(count) % 2
    images_NHWC = rng.integers(0, 120, (count, size, size, 3), dtype=np.uint8)
    images_NHWC[np.arange(count), :, :, 2 * labels_N] += 120
    return Source(images_NHWC, labels_N, ("red", "blue"), fingerprint="sha256:" + "0" * 64, name="colours")


@pytest.fixture
def fixed_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of every network takes a hundredth of a second, so that plans do not depend on the machine."""
    monkeypatch.setattr(budget, "_step_seconds", lambda *_: 0.01)


def plan(seconds: float, family: str = "spatial", count: int = 640, **options: object) -> budget.TrainingPlan:
    source = colours(count)
    settings = recommended_settings(source, family)
    return plan_training(source, seconds, family=family, settings=settings, judge=default_judge(32), options=options)


@pytest.mark.usefixtures("fixed_speed")
def test_more_time_trains_longer_and_wider_networks() -> None:
    plans = [plan(seconds) for seconds in (20.0, 60.0, 600.0)]
    for short, long in pairwise(plans):
        assert long.settings.epochs > short.settings.epochs
        assert isinstance(short.config, SpatialConfig)
        assert isinstance(long.config, SpatialConfig)
        assert long.config.width >= short.config.width
        assert isinstance(short.sampler, TransportSettings)
        assert isinstance(long.sampler, TransportSettings)
        assert long.sampler.epochs >= short.sampler.epochs
    for seconds, planned in zip((20.0, 60.0, 600.0), plans, strict=True):
        assert sum(planned.seconds.values()) <= seconds


@pytest.mark.usefixtures("fixed_speed")
def test_a_long_time_leaves_the_judge_its_usual_steps_and_a_short_one_fewer() -> None:
    usual = default_judge(32).budget.steps
    long, short = plan(3600.0).judge, plan(20.0).judge
    assert long is not None
    assert short is not None
    assert long.budget.steps == usual
    assert 50 <= short.budget.steps < usual


@pytest.mark.usefixtures("fixed_speed")
def test_given_fields_of_the_model_are_kept() -> None:
    config = plan(60.0, width=40, code_channels=8).config
    assert isinstance(config, SpatialConfig)
    assert (config.width, config.code_channels) == (40, 8)


@pytest.mark.usefixtures("fixed_speed")
def test_without_a_map_the_autoencoder_gets_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with_map = plan(30.0, width=48)
    monkeypatch.setattr(defaults, "MIN_PHOTOGRAPHS", 640)
    without = plan(30.0, width=48)
    assert isinstance(without.sampler, TransportSettings)
    assert (without.sampler.map, without.sampler.clusters) == (None, 20)
    assert without.settings.epochs > 1.5 * with_map.settings.epochs
    assert sum(without.seconds.values()) <= 30.0


@pytest.mark.usefixtures("fixed_speed")
def test_tuning_on_sampled_codes_gets_a_share_where_it_is_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_tuning_seconds", lambda *_: 0.02)
    monkeypatch.setattr(defaults, "MIN_PHOTOGRAPHS", 640)
    short, long = (plan(seconds, "vae").settings for seconds in (30.0, 200.0))
    assert 0 < 3 * short.tuning_steps < long.tuning_steps
    assert long.epochs > short.epochs
    assert plan(8.0, "vae").settings.tuning_steps == 0
    assert sum(plan(200.0, "vae").seconds.values()) <= 200.0


@pytest.mark.slow
def test_a_step_on_sampled_codes_is_timed() -> None:
    source = colours(64)
    settings = recommended_settings(source, "vae").model_copy(update={"feature_loss": 1.0, "tuning_steps": 1})
    config = recommended_model(source, "vae", width=4)
    assert 0.0 < budget._tuning_seconds(source, config, settings, torch.device("cpu")) < 60.0


@pytest.mark.usefixtures("fixed_speed")
def test_other_families_get_epochs() -> None:
    planned = plan(60.0, "vae")
    assert planned.config.family == "vae"
    assert isinstance(planned.sampler, MixtureSettings)
    assert planned.settings.epochs > 100


@pytest.mark.slow
@pytest.mark.usefixtures("fixed_speed")
def test_a_time_too_short_for_an_epoch_is_refused_and_says_what_is_not() -> None:
    with pytest.raises(SpecError, match=r"budget: expected at least \d+ seconds .* got 1 seconds"):
        plan(1.0)
    needed = 0.0
    try:
        plan(1.0)
    except SpecError as refused:
        needed = float(refused.expected.split()[2])
    assert plan(needed + 1.0).settings.epochs >= 1


@pytest.mark.slow
def test_the_command_trains_what_it_plans(tmp_path: Path) -> None:
    source = colours(60)
    assert source.labels_N is not None
    images = tmp_path / "colours.npz"
    np.savez(images, train_images=source.images_NHWC, train_labels=source.labels_N, class_names=["red", "blue"])
    words = ["train", str(images), "--model", "spatial", "--width", "8", "--budget", "2s", "--out", str(tmp_path / "b")]
    ran = CliRunner().invoke(root, [*words, "--code-channels", "2", "--judges", "0", "--feature-loss", "0"])
    assert ran.exit_code == 0, ran.output
    assert "plan for 2 s: spatial of width 8, 32 numbers a code" in ran.output
    _, info = read_info(open_store(str(tmp_path / "b")))
    assert info.training is not None
    settings: TrainSettings = info.training.settings
    assert f"{settings.epochs} epochs" in ran.output
    assert info.fitting.settings.family == "transport"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "1m", "--epochs", "3"], "a budget or --epochs, not both"),
        (["--budget", "1m", "--sampler", "flow"], "a budget or --sampler, not both"),
        (["--budget", "1m", "--map-epochs", "3"], "a budget or --map-epochs, not both"),
        (["--budget", "soon"], "expected a duration such as 90s, 20m or 1h30m"),
        (["--budget", "0s"], "expected a duration"),
        (["--budget", "30s20m"], "expected a duration"),
    ],
)
def test_what_a_budget_decides_cannot_be_given_too(tmp_path: Path, words: list[str], message: str) -> None:
    ran = CliRunner().invoke(root, ["train", "digits", "--out", str(tmp_path / "b"), *words])
    assert ran.exit_code == 2 or isinstance(ran.exception, SpecError)  # the program translates it to 2
    assert message in ran.output or message in str(ran.exception)
