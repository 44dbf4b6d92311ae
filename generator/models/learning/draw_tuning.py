"""Draws codes from a fitted latent distribution and trains the decoder further on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from generator.models.autoencoders.decoder_tuning import DrawnCodes, batch_of, tune_decoder
from generator.models.autoencoders.devices import resolve_device
from generator.models.autoencoders.settings import TrainSettings
from generator.models.autoencoders.training import Examples, TrainedAutoencoder, derive_seed
from generator.models.features.classifier import Classifier
from generator.models.latents import LatentDistribution
from generator.models.latents.codes import Codes
from generator.models.latents.transport_map import to_codes
from generator.spec.seeding import noise, permutation

_MAX_DRAWS, _DRAWN_AT_ONCE = 60_000, 2048


def tune_on_draws(
    trained: TrainedAutoencoder,
    settings: TrainSettings,
    training: Examples,
    codes: Codes,
    latents: LatentDistribution,
    features: Classifier,
    on_step: Callable[[int, int], None] = lambda *_: None,
) -> TrainedAutoencoder:
    """``trained`` after ``settings.tuning_steps`` on draws from ``latents``, which was fitted to ``codes``.

    Labels are drawn as often as ``training`` has them. The draws are none of those that datasets of any seed below
    2**31 have. Raises ``SpecError`` and ``TrainingDiverged``.
    """
    assert training.labels_N is not None
    seed = derive_seed(settings.seed, "tuning")
    count = min(_MAX_DRAWS, settings.tuning_steps * batch_of(trained.config))
    labels_S = training.labels_N[permutation(seed, stream=0, size=len(training))]
    drawn = draw_codes(latents, np.resize(labels_S, count), seed)
    device = resolve_device(settings.device)
    return tune_decoder(
        trained, settings, training, codes.codes_ND, drawn, features, seed=seed, device=device, on_step=on_step
    )


def draw_codes(latents: LatentDistribution, labels_S: np.ndarray, seed: int) -> DrawnCodes:
    """A code for each of ``labels_S`` (int64), after the map of a transport."""
    parts = list[np.ndarray]()
    for begin in range(0, len(labels_S), _DRAWN_AT_ONCE):
        labels_B = labels_S[begin : begin + _DRAWN_AT_ONCE]
        rows_B = np.arange(begin, begin + len(labels_B))
        drawn = latents.sample(noise(seed, rows_B, np.zeros_like(rows_B), latents.dims), labels_B)
        parts.append(to_codes(latents, drawn.z_BD, labels_B))
    return DrawnCodes(np.concatenate(parts), labels_S)
