"""The flow: equal to the zuko network, better than a Gaussian, deterministic, and refused if it diverges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generator.errors import SourceError, TrainingDiverged
from generator.models.latents.codes import Codes
from generator.models.latents.config import FlowSettings, GaussianSettings
from generator.models.latents.exact_product import ExactProduct, round_inputs
from generator.models.latents.fitting import flow as flow_fitting
from generator.models.latents.fitting.fit import fit
from generator.models.latents.flow import Flow, FlowConfig
from generator.models.latents.quantiles import empty_quantiles

pytestmark = pytest.mark.usefixtures("one_thread")


def bananas(count: int, seed: int) -> Codes:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3))
    codes = np.column_stack([x[:, 0], x[:, 0] ** 2 + 0.2 * x[:, 1], x[:, 2]])
    labels = np.arange(count) % 2
    codes[labels == 1] *= -1.0
    held = count // 5
    return Codes(codes[held:], labels[held:], codes[:held], labels[:held], ("up", "down"))


SMALL = FlowSettings(transforms=4, hidden=16, epochs=12, batch=64)


def test_densities_are_those_of_the_network_that_was_trained() -> None:
    config = FlowConfig(dims=5, classes=3, transforms=4, hidden=32)
    mask = flow_fitting._masks(config, 1)
    network = flow_fitting._network(config, mask, 1)
    whitening = {"mean": np.zeros((3, 5)), "factor": np.stack([np.eye(5)] * 3)}
    flow = Flow(
        config, {**whitening, "mask": mask, "quantile": empty_quantiles(3), **flow_fitting._copy_weights(network)}
    )
    z, labels = np.random.default_rng(0).normal(size=(200, 5)), np.arange(200) % 3
    with torch.no_grad():
        context = torch.eye(3)[torch.from_numpy(labels)]
        expected = network(context).log_prob(torch.from_numpy(z).float()).numpy()
    np.testing.assert_allclose(flow.log_prob(z, labels), expected, atol=1e-4)


@pytest.mark.slow
def test_it_fits_better_than_a_gaussian_and_reports_it() -> None:
    codes = bananas(1200, 0)
    flow, gaussian = fit(codes, SMALL), fit(codes, GaussianSettings())
    assert codes.holdout_labels_H is not None
    log_prob = flow.distribution.log_prob(codes.holdout_HD, codes.holdout_labels_H).mean()
    assert log_prob > gaussian.distribution.log_prob(codes.holdout_HD, codes.holdout_labels_H).mean() + 0.3
    assert flow.chosen["holdout_log_likelihood"] == pytest.approx(log_prob, abs=1e-3)
    assert 1 <= flow.chosen["best_epoch"] <= flow.chosen["epochs"] <= 12


def test_the_same_seed_gives_the_same_bits() -> None:
    short = FlowSettings(transforms=2, hidden=8, epochs=2, batch=64)
    first, second, other = (fit(bananas(300, 0), short, seed=seed).distribution.state()[1] for seed in (3, 3, 4))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert first["0.0.weight"].tobytes() != other["0.0.weight"].tobytes()


def test_training_stops_once_held_out_codes_do_not_improve() -> None:
    noisy = FlowSettings(transforms=2, hidden=32, epochs=200, batch=16, patience=2, weight_decay=0.0)
    chosen = fit(bananas(100, 0), noisy).chosen
    assert chosen["epochs"] == chosen["best_epoch"] + 2 < 200


def test_a_flow_that_diverges_says_so() -> None:
    wild = Codes(np.random.default_rng(0).normal(size=(200, 3)), None, np.full((20, 3), 1e300), None)
    with pytest.raises(TrainingDiverged) as diverged:
        fit(wild, SMALL)
    assert diverged.value.field.startswith("flow")


def test_one_dimension_is_refused() -> None:
    codes = np.random.default_rng(0).normal(size=(50, 1))
    with pytest.raises(SourceError, match="at least 2 dimensions"):
        fit(Codes(codes, None, codes, None), SMALL)


def test_products_are_exact_in_every_order() -> None:
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(50, 70)).astype(np.float32), round_inputs(rng.normal(scale=20.0, size=(70, 33)))
    order = rng.permutation(70)
    whole = ExactProduct(weight)(x)
    shuffled = ExactProduct(weight[:, order])(x[order])
    assert shuffled.tobytes() == whole.tobytes()
    columns = np.column_stack([ExactProduct(weight)(x[:, [i]]) for i in range(33)])
    assert np.ascontiguousarray(columns).tobytes() == whole.tobytes()
    with pytest.raises(ValueError, match="absolute sum"):
        ExactProduct(np.full((2, 70), 1e5, dtype=np.float32))


def test_a_flow_that_gains_nothing_says_so() -> None:
    rng = np.random.default_rng(0)
    codes = Codes(rng.normal(size=(60, 3)), None, rng.normal(size=(2000, 3)), None)
    fitted = fit(codes, FlowSettings(transforms=2, hidden=32, epochs=40, batch=16, patience=40))
    gaussian = fit(codes, GaussianSettings()).distribution.log_prob(codes.holdout_HD, np.zeros(2000, dtype=np.int64))
    gained = fitted.chosen["holdout_log_likelihood"] > round(float(gaussian.mean()), 4)
    assert any("held-out log-density" in notice for notice in fitted.notices) == (not gained)


def test_few_held_out_codes_give_a_notice() -> None:
    rng = np.random.default_rng(0)
    codes = Codes(rng.normal(size=(200, 2)), None, rng.normal(size=(4, 2)), None)
    fitted = fit(codes, FlowSettings(transforms=2, hidden=8, epochs=1))
    expected = "4 held-out codes are too few; training codes also decide when the flow stops"
    assert any(expected in notice for notice in fitted.notices)
    assert fitted.chosen["holdout_log_likelihood"] is None
