"""Properties of each family from its paper, tested on the bundled digits and on constant images."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from torch import nn

from generator.models.autoencoders.config import AutoencoderConfig, LayerwiseConfig, RegularizedConfig, parse_config
from generator.models.autoencoders.factory import load_decoder, load_encoder
from generator.models.autoencoders.families.adversarial import prior_centres, squared_mmd
from generator.models.autoencoders.families.denoising import corrupt
from generator.models.autoencoders.families.layerwise import LayerwiseAutoencoder
from generator.models.autoencoders.families.regularized import (
    RegularizedAutoencoder,
    largest_singular_value,
    squared_norm,
)
from generator.models.autoencoders.inference import encode
from generator.models.autoencoders.networks import Decoder, to_input
from generator.models.autoencoders.settings import TrainSettings
from generator.models.autoencoders.training import Examples, TrainedAutoencoder, train_autoencoder
from generator.sources import load_source, split

CPU = torch.device("cpu")


pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


@cache
def digits() -> tuple[Examples, Examples]:
    """The bundled digits, 8 x 8, as training images and held-out images."""
    source = load_source("digits")
    assert source.labels_N is not None
    parts = split(len(source), source.labels_N, holdout=0.25, seed=0)
    train_N, holdout_N = parts.train_N, parts.holdout_N
    return (
        Examples(source.images_NHWC[train_N], source.labels_N[train_N]),
        Examples(source.images_NHWC[holdout_N], source.labels_N[holdout_N]),
    )


def config_of(family: str, **options: object) -> AutoencoderConfig:
    width = {} if family == "linear" else {"width": 16}
    return parse_config({"family": family, "size": 8, "channels": 1, "latent_dim": 8, **width, **options})


@cache
def trained_on_digits(config: AutoencoderConfig, epochs: int = 12, rate: float = 5e-3) -> TrainedAutoencoder:
    settings = TrainSettings(epochs=epochs, batch=64, learning_rate=rate, patience=epochs, seed=1, device="cpu")
    return train_autoencoder(config, settings, *digits(), classes=10)


def held_out_codes(trained: TrainedAutoencoder) -> np.ndarray:
    return encode(load_encoder(trained.config, trained.encoder_state), digits()[1].images_NHWC)


def rows_of(images_NHWC: np.ndarray, side: int) -> np.ndarray:
    """Every ``side`` x ``side`` patch of the images as a row, in [0, 1]."""
    grid = 8 // side
    patches = images_NHWC.reshape(-1, grid, side, grid, side).transpose(0, 1, 3, 2, 4)
    return patches.reshape(-1, side * side) / 255.0


@pytest.mark.parametrize(("side", "hidden"), [(8, 4), (4, 3)])
def test_the_linear_autoencoder_spans_the_principal_subspace(side: int, hidden: int) -> None:
    patch = None if side == 8 else side
    config = config_of("linear", latent_dim=hidden * (8 // side) ** 2, patch=patch)
    trained = trained_on_digits(config, epochs=30)
    principal = PCA(hidden).fit(rows_of(digits()[0].images_NHWC, side))
    learned_XK = trained.decoder_state["output.weight"].double().numpy()
    assert np.degrees(subspace_angles(learned_XK, principal.components_.T).max()) < 5.0
    encoder = load_encoder(config, trained.encoder_state)
    decoder = load_decoder(config, trained.decoder_state)
    x_BCHW = to_input(digits()[0].images_NHWC, CPU)
    unexplained = (decoder(encoder(x_BCHW)) - x_BCHW).square().sum().item()
    rows = rows_of(digits()[0].images_NHWC, side)
    least = ((principal.inverse_transform(principal.transform(rows)) - rows) ** 2).sum()
    assert least * 0.9999 <= unexplained <= least * 1.01


def test_pre_training_lowers_the_error_of_each_layer_before_fine_tuning_begins() -> None:
    history = trained_on_digits(config_of("stacked-layerwise", pretraining=0.5), epochs=16).history
    layers = [name for name in history[0].holdout_terms if name.startswith("layer")]
    assert layers == ["layer 1", "layer 2"]
    first, second = ([record.holdout_terms[name] for record in history[:8]] for name in layers)
    assert first[3] < 0.6 * first[0]
    assert second[7] < 0.75 * second[3]
    assert first[4:] == pytest.approx([first[3]] * 4, rel=0.05)  # unchanged while the second layer is trained
    assert not any(record.best for record in history[:7])
    whole = [record.holdout_terms["reconstruction"] for record in history]
    assert min(whole[8:]) < whole[7] < whole[3]


def test_pre_training_moves_one_layer_at_a_time() -> None:
    config = config_of("stacked-layerwise", pretraining=0.5)
    assert isinstance(config, LayerwiseConfig)
    network, batch = LayerwiseAutoencoder(config, TrainSettings()), digits()[0].batch(slice(64), CPU)
    for progress, moved in ((0.0, ("encoder.trunk.0.", "decoder.grow.0.")), (0.3, ("encoder.code.", "decoder.start."))):
        network.zero_grad()
        network.losses(batch, progress=progress, noise=torch.Generator()).total.backward()  # type: ignore[no-untyped-call]
        for name, weight in network.named_parameters():
            assert (weight.grad is not None) == name.startswith(moved)


@pytest.mark.parametrize(("noise", "amount"), [("gaussian", 0.4), ("masking", 0.4), ("salt-and-pepper", 0.3)])
def test_the_denoising_autoencoder_restores_what_the_plain_one_does_not(noise: str, amount: float) -> None:
    x_BCHW = to_input(digits()[1].images_NHWC, CPU)
    noisy_BCHW = corrupt(x_BCHW, noise, amount, torch.Generator().manual_seed(7))
    errors = []
    for config in (
        config_of("denoising", latent_dim=24, noise=noise, amount=amount),
        config_of("stacked", latent_dim=24),
    ):
        trained = trained_on_digits(config)
        codes_BD = load_encoder(config, trained.encoder_state)(noisy_BCHW)
        restored_BCHW = load_decoder(config, trained.decoder_state)(codes_BD)
        errors.append((restored_BCHW - x_BCHW).square().mean().item())
    assert errors[0] < 0.75 * errors[1]
    assert errors[0] < 0.5 * (noisy_BCHW - x_BCHW).square().mean().item()


@pytest.mark.parametrize(("noise", "amount"), [("masking", 0.25), ("salt-and-pepper", 0.4), ("gaussian", 0.2)])
def test_noise_is_of_the_kind_and_amount_asked_for(noise: str, amount: float) -> None:
    x_BCHW = torch.full((200, 3, 16, 16), 0.5)
    noisy_BCHW = corrupt(x_BCHW, noise, amount, torch.Generator().manual_seed(0))
    change_BCHW = noisy_BCHW - x_BCHW
    if noise == "gaussian":
        assert change_BCHW.std().item() == pytest.approx(amount, rel=0.02)
        assert change_BCHW.mean().item() == pytest.approx(0.0, abs=0.01)
        return
    hit_BCHW = change_BCHW != 0.0
    assert torch.equal(hit_BCHW.any(dim=1), hit_BCHW.all(dim=1))
    assert hit_BCHW.float().mean().item() == pytest.approx(amount, abs=0.01)
    assert noisy_BCHW[hit_BCHW].mean().item() == pytest.approx(0.0 if noise == "masking" else 0.5, abs=0.02)
    assert set(noisy_BCHW[hit_BCHW].unique().tolist()) == ({0.0} if noise == "masking" else {0.0, 1.0})


def test_adversarial_codes_match_the_prior_better_than_plain_ones() -> None:
    adversarial = held_out_codes(trained_on_digits(config_of("adversarial"), epochs=14))
    plain = held_out_codes(trained_on_digits(config_of("stacked"), epochs=14))
    scaled = (plain - plain.mean(axis=0)) / plain.std(axis=0)  # also after standardising the codes
    distances = [squared_mmd(torch.from_numpy(z_BD)).item() for z_BD in (adversarial, plain, scaled)]
    assert distances[0] < 0.2 * distances[1]
    draws = torch.randn(len(plain), 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert squared_mmd(draws).item() < distances[0] < 0.05


def test_a_prior_for_every_class_puts_each_class_in_its_place() -> None:
    config = config_of("adversarial", conditioned=True, adversary=100.0)
    codes_ND = held_out_codes(trained_on_digits(config, epochs=18))
    labels_N = digits()[1].labels_N
    assert labels_N is not None
    distance_NK = np.linalg.norm(codes_ND[:, None] - prior_centres(10, 8).numpy(), axis=2)
    assert (distance_NK.argmin(axis=1) == labels_N).mean() > 0.5
    around_ND = torch.from_numpy(codes_ND - prior_centres(10, 8).numpy()[labels_N])
    assert squared_mmd(around_ND).item() < 0.05


def test_the_mismatch_is_that_of_many_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    z_BD = 0.5 * torch.randn(400, 3, generator=generator, dtype=torch.float64) + 0.7
    drawn_BD = torch.randn(2500, 3, generator=generator, dtype=torch.float64)

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.exp(-torch.cdist(a, b).square() / 6.0).mean()

    expected = kernel(z_BD, z_BD) - 2.0 * kernel(z_BD, drawn_BD) + kernel(drawn_BD, drawn_BD)
    assert squared_mmd(z_BD).item() == pytest.approx(expected.item(), rel=0.1)


@pytest.mark.parametrize(("classes", "dims"), [(10, 1), (10, 2), (3, 5), (10, 24), (50, 4)])
def test_centres_of_the_classes_lie_apart(classes: int, dims: int) -> None:
    centres_KD = prior_centres(classes, dims)
    assert centres_KD.shape == (classes, dims)
    assert torch.pdist(centres_KD).min().item() == pytest.approx(6.0, rel=1e-4)
    torch.testing.assert_close(centres_KD, prior_centres(classes, dims), rtol=0.0, atol=0.0)


def test_regularized_codes_are_smaller() -> None:
    norms = [
        np.linalg.norm(held_out_codes(trained_on_digits(config)), axis=1).mean()
        for config in (config_of("regularized", code_penalty=0.5), config_of("stacked"))
    ]
    assert norms[0] < 0.5 * norms[1]


def decoder_of(trained: TrainedAutoencoder) -> nn.Module:
    return load_decoder(trained.config, trained.decoder_state)


def test_the_l2_penalty_shrinks_the_decoders_weights() -> None:
    with_it, without = (
        squared_norm(decoder_of(trained_on_digits(config_of("regularized", decoder_weight=weight)))).item()
        for weight in (0.05, 0.0)
    )
    assert with_it < 0.5 * without


def test_the_gradient_penalty_flattens_the_decoder() -> None:
    slopes = []
    for weight in (0.5, 0.0):
        config = config_of("regularized", decoder_penalty="gradient", decoder_weight=weight)
        trained = trained_on_digits(config)
        decoder = decoder_of(trained)
        z_BD = torch.from_numpy(held_out_codes(trained)[:40]).float()
        jacobian = torch.autograd.functional.jacobian(lambda z, of=decoder: of(z).sum(dim=0), z_BD)
        slopes.append(jacobian.square().sum().item() / 40)
    assert slopes[0] < 0.6 * slopes[1]


def test_the_norm_of_the_jacobian_is_estimated_correctly() -> None:
    config = config_of("regularized", decoder_penalty="gradient")
    assert isinstance(config, RegularizedConfig)
    network = RegularizedAutoencoder(config, TrainSettings()).eval()
    batch = digits()[1].batch(slice(64), CPU)
    terms = [
        network.losses(batch, progress=0.0, noise=torch.Generator().manual_seed(seed)).terms["decoder"].item()
        for seed in range(40)
    ]
    z_BD = network.encoder(batch.x_BCHW).detach()
    jacobian = torch.autograd.functional.jacobian(lambda z: network.decoder(z).sum(dim=0), z_BD)
    assert np.mean(terms) == pytest.approx(jacobian.square().sum().item() / 64, rel=0.1)


def test_spectral_weights_are_normalised_plain_weights() -> None:
    decoder = decoder_of(trained_on_digits(config_of("regularized", decoder_penalty="spectral")))
    assert isinstance(decoder, Decoder)
    layers = [layer for layer in decoder.modules() if isinstance(layer, nn.Linear | nn.ConvTranspose2d)]
    assert len(layers) == 2
    for layer in layers:
        outputs_first = layer.weight if isinstance(layer, nn.Linear) else layer.weight.transpose(0, 1)
        assert torch.linalg.matrix_norm(outputs_first.flatten(1), ord=2).item() == pytest.approx(1.0, rel=1e-3)
        assert largest_singular_value(layer).item() == pytest.approx(1.0, rel=1e-3)


def test_free_bits_fill_dimensions_that_would_be_empty() -> None:
    divergences = []
    for free_bits in (0.0, 0.3):
        trained = trained_on_digits(config_of("vae", beta=3.0, free_bits=free_bits))
        encoder = load_encoder(trained.config, trained.encoder_state)
        mean_BD, log_variance_BD = encoder.posterior(to_input(digits()[1].images_NHWC, CPU))  # type: ignore[operator]
        each_BD = 0.5 * (mean_BD.square() + log_variance_BD.exp() - 1.0 - log_variance_BD)
        divergences.append(each_BD.mean(dim=0))
    emptied = divergences[0] < 0.05
    assert emptied.sum() >= 2
    assert divergences[1].min() > 0.2
