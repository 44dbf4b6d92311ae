"""The loss of the variational autoencoder, compared with closed forms."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import cross_entropy

from generator.errors import SpecError
from generator.models.autoencoders.config import VaeConfig
from generator.models.autoencoders.families.base import Batch, reconstruction_loss
from generator.models.autoencoders.families.vae import Vae, kl_from_prior, reparametrised
from generator.models.autoencoders.settings import TrainSettings

CONFIG = VaeConfig(size=8, channels=1, latent_dim=3, width=4)


def with_beta(beta: float, warmup: float) -> VaeConfig:
    return CONFIG.model_copy(update={"beta": beta, "warmup": warmup})


def images(count: int) -> Batch:
    return Batch(torch.rand(count, 1, 8, 8), None)


def test_divergence_is_that_of_the_textbook() -> None:
    mean_BD, log_variance_BD = torch.randn(7, 5), torch.randn(7, 5)
    expected = kl_divergence(Normal(mean_BD, torch.exp(0.5 * log_variance_BD)), Normal(0.0, 1.0)).sum(dim=1).mean()
    torch.testing.assert_close(kl_from_prior(mean_BD, log_variance_BD), expected)


def test_reparametrised_codes_have_the_posteriors_moments() -> None:
    mean_BD = torch.tensor([[1.0, -2.0]]).expand(50_000, 2)
    log_variance_BD = torch.log(torch.tensor([[0.25, 4.0]])).expand(50_000, 2)
    z_BD = reparametrised(mean_BD, log_variance_BD, torch.Generator().manual_seed(0))
    torch.testing.assert_close(z_BD.mean(dim=0), torch.tensor([1.0, -2.0]), atol=0.05, rtol=0.0)
    torch.testing.assert_close(z_BD.var(dim=0), torch.tensor([0.25, 4.0]), atol=0.1, rtol=0.0)


@pytest.mark.parametrize("reconstruction", ["bce", "mse"])
def test_the_divergence_grows_to_beta_during_warm_up(reconstruction: str) -> None:
    config, settings = with_beta(0.5, warmup=0.4), TrainSettings(reconstruction=reconstruction)  # type: ignore[arg-type]
    vae, batch = Vae(config, settings).eval(), images(6)
    for progress, beta in ((0.0, 0.0), (0.2, 0.25), (0.4, 0.5), (1.0, 0.5)):
        losses = vae.losses(batch, progress=progress, noise=None)
        expected = losses.terms["reconstruction"] + beta * losses.terms["divergence"]
        torch.testing.assert_close(losses.total.detach(), expected)


def test_no_warm_up_means_beta_from_the_first_step() -> None:
    vae, batch = Vae(with_beta(0.5, warmup=0.0), TrainSettings()).eval(), images(6)
    losses = vae.losses(batch, progress=0.0, noise=None)
    torch.testing.assert_close(losses.total.detach(), losses.terms["reconstruction"] + 0.5 * losses.terms["divergence"])


@pytest.mark.parametrize("reconstruction", ["bce", "mse"])
def test_reconstruction_is_least_where_the_image_is_met(reconstruction: str) -> None:
    x_BCHW = torch.rand(4, 1, 8, 8).clamp(0.05, 0.95)
    met = reconstruction_loss(torch.logit(x_BCHW), x_BCHW, reconstruction)
    missed = reconstruction_loss(torch.logit(x_BCHW) + 0.3 * torch.randn_like(x_BCHW), x_BCHW, reconstruction)
    assert met < missed


def test_without_noise_the_losses_are_deterministic_and_with_it_they_are_drawn() -> None:
    vae, batch = Vae(CONFIG, TrainSettings()).eval(), images(6)
    first, second = (vae.losses(batch, progress=1.0, noise=None).total for _ in range(2))
    drawn = vae.losses(batch, progress=1.0, noise=torch.Generator().manual_seed(0)).total
    assert first == second != drawn


def test_codes_tell_their_labels_if_that_is_asked_for() -> None:
    config = CONFIG.model_copy(update={"label_weight": 30.0})
    batch = Batch(images(6).x_BCHW, torch.arange(6) % 2)
    vae = Vae(config, TrainSettings(), classes=2).eval()
    losses = vae.losses(batch, progress=1.0, noise=None)
    assert vae.label is not None
    surprise = cross_entropy(vae.label(vae.encoder(batch.x_BCHW)), batch.labels_B)
    without = losses.terms["reconstruction"] + config.beta * losses.terms["divergence"]
    torch.testing.assert_close(losses.total, without + 30.0 * surprise)
    assert not any(name.startswith("label") for name in Vae(CONFIG, TrainSettings(), classes=2).state_dict())
    with pytest.raises(SpecError, match=r"model.label_weight: expected 0 without two classes or more, got 30.0"):
        Vae(config, TrainSettings(), classes=1)


def test_a_configuration_without_labels_keeps_its_canonical_form() -> None:
    assert "label_weight" not in CONFIG.model_dump(mode="json")
    wide = VaeConfig(size=8, image_width=16, channels=1, latent_dim=3, width=4, label_weight=2.0)
    assert VaeConfig.model_validate(wide.model_dump(mode="json")) == wide
