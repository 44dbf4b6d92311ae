"""Trains a decoder further on codes drawn from the fitted latent distribution, so that sampled images gain too.

Training an autoencoder shows its decoder codes of real images only; what it makes of sampled codes is left to chance.
Here the encoder and all codes stay as they are. The decoder learns to make images of sampled codes that a discriminator
(``label_discriminator``) takes for real ones of their label and that a frozen classifier recognises, and goes on
reconstructing real images from their codes.

The result depends on the arguments alone, and on CPU on the number of threads. Legend: as in ``label_discriminator``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from generator.errors import SpecError, TrainingDiverged
from generator.models.autoencoders.config import AutoencoderConfig, ConvolutionalConfig
from generator.models.autoencoders.factory import build_decoder
from generator.models.autoencoders.families.base import MSE_VARIANCE
from generator.models.autoencoders.graphs.config import GraphConfig
from generator.models.autoencoders.label_discriminator import (
    LabelDiscriminator,
    LabelFeatures,
    deception_loss,
    hinge_loss,
)
from generator.models.autoencoders.networks import to_input
from generator.models.autoencoders.settings import TrainSettings
from generator.models.autoencoders.sharpening import map_distance
from generator.models.autoencoders.training import Examples, TrainedAutoencoder, translate_out_of_memory
from generator.models.weight_average import WeightAverage

BATCH, _GRAPH_BATCH = 64, 32  # sampled codes of a step, and as many of real images
_RATE, _GRAPH_RATE = 5e-4, 1e-4  # of a decoder trained on these images, and of one that knows others, too
_DISCRIMINATOR_RATE, _BETAS = 1e-3, (0.5, 0.99)
_RISE, _FALL, _FINAL_RATE = 0.05, 0.5, 0.02  # shares of the steps in which the learning rate rises and falls; its end
_LABEL_WEIGHT, _RECONSTRUCTION_WEIGHT = 0.5, 2e-3  # relative to the discriminator's term
_HALF_LIFE = 0.15  # of the moving average of the weights, as a share of the steps
_SCALED_BY = 512  # real images whose maps give the scale of the levels


@dataclass(frozen=True)
class DrawnCodes:
    """Codes drawn from a latent distribution, float64, and the label that each was drawn for, int64."""

    codes_SD: np.ndarray
    labels_S: np.ndarray


def check_tuning(config: AutoencoderConfig, settings: TrainSettings, classes: int) -> None:
    """Raise ``SpecError`` naming ``train.tuning_steps`` if ``settings`` ask for what cannot be done."""
    if settings.tuning_steps == 0:
        return
    got = f"{settings.tuning_steps} steps"
    if not isinstance(config, ConvolutionalConfig | GraphConfig):
        raise SpecError("train.tuning_steps", f"0 for the family {config.family}", got)
    if classes < 2:
        raise SpecError("train.tuning_steps", "0 without two classes or more", got)
    if not settings.feature_loss:
        raise SpecError("train.tuning_steps", "a feature loss, whose classifier is needed, or 0", got)


def batch_of(config: AutoencoderConfig) -> int:
    """Sampled codes of a step, and as many of real images: fewer for a decoder that exists, which is larger."""
    return _GRAPH_BATCH if isinstance(config, GraphConfig) else BATCH


def tune_decoder(
    trained: TrainedAutoencoder,
    settings: TrainSettings,
    training: Examples,
    codes_ND: np.ndarray,
    drawn: DrawnCodes,
    features: LabelFeatures,
    *,
    seed: int,
    device: torch.device,
    on_step: Callable[[int, int], None] = lambda *_: None,
) -> TrainedAutoencoder:
    """``trained`` with a decoder that took ``settings.tuning_steps`` more steps.

    ``codes_ND``: the codes of ``training``, which is labelled. ``features``: on ``device``, its maps differentiable in
    the images. ``on_step`` is called with the steps done and their number. Raises ``SpecError`` as ``check_tuning``
    does, ``TrainingDiverged``, and ``DeviceExhausted``.
    """
    assert training.labels_N is not None
    classes = int(max(training.labels_N.max(), drawn.labels_S.max())) + 1
    check_tuning(trained.config, settings, classes)
    steps = settings.tuning_steps
    random = torch.Generator().manual_seed(seed)
    with translate_out_of_memory(device):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tuning = _Tuning(trained, settings.feature_loss, training, codes_ND, drawn, features, classes, device)
        for step in range(steps):
            tuning.step(step, steps, random)
            on_step(step + 1, steps)
    return replace(trained, decoder_state=tuning.result())


class _Tuning:
    def __init__(
        self,
        trained: TrainedAutoencoder,
        feature_loss: float,
        training: Examples,
        codes_ND: np.ndarray,
        drawn: DrawnCodes,
        features: LabelFeatures,
        classes: int,
        device: torch.device,
    ) -> None:
        self._decoder = build_decoder(trained.config)
        self._decoder.load_state_dict(trained.decoder_state)
        self._decoder.to(device).train()
        self._features, self._feature_loss, self._device = features, feature_loss, device
        self._training, self._codes_ND, self._drawn = training, codes_ND, drawn
        with torch.no_grad():
            real_maps = features.maps(to_input(training.images_NHWC[:_SCALED_BY], device))
        self._discriminator = LabelDiscriminator(trained.config.channels, classes, real_maps).to(device)
        self._size = batch_of(trained.config)
        self._rate = _GRAPH_RATE if isinstance(trained.config, GraphConfig) else _RATE
        self._optimizer, self._discriminator_optimizer = (
            torch.optim.Adam(network.parameters(), rate, betas=_BETAS)
            for network, rate in ((self._decoder, self._rate), (self._discriminator, _DISCRIMINATOR_RATE))
        )
        self._average = WeightAverage(self._decoder, _HALF_LIFE)

    def step(self, step: int, steps: int, random: torch.Generator) -> None:
        for optimizer, rate in ((self._optimizer, self._rate), (self._discriminator_optimizer, _DISCRIMINATOR_RATE)):
            optimizer.param_groups[0]["lr"] = rate * _rate_factor(step, steps)
        loss = self._train_step(*self._batch(random)).item()
        if not math.isfinite(loss):
            where = f"{loss} in step {step + 1} on sampled codes"
            raise TrainingDiverged("loss", "a number", where, "try fewer tuning_steps, or 0")
        self._average.update(step, steps)

    def _train_step(
        self, x_BCHW: Tensor, labels_B: Tensor, codes_BD: Tensor, drawn_BD: Tensor, drawn_B: Tensor
    ) -> Tensor:
        sampled_BCHW, output_BCHW = self._decoder(torch.cat([drawn_BD, codes_BD])).split(len(drawn_BD))
        with torch.no_grad():
            maps = self._features.maps(x_BCHW)
        sampled_maps = self._features.maps(sampled_BCHW)
        seen_maps = tuple(level.detach() for level in sampled_maps)
        real = self._discriminator(x_BCHW, maps, labels_B)
        fake = self._discriminator(sampled_BCHW.detach(), seen_maps, drawn_B)
        _descend(self._discriminator_optimizer, hinge_loss(real, fake))
        self._discriminator.requires_grad_(False)
        deception = deception_loss(self._discriminator(sampled_BCHW, sampled_maps, drawn_B))
        self._discriminator.requires_grad_(True)
        recognition = functional.cross_entropy(self._features.classify(sampled_maps[-1]), drawn_B)
        error = (output_BCHW - x_BCHW).square().sum() / (2.0 * MSE_VARIANCE * len(x_BCHW))
        distance = map_distance(maps, self._features.maps(output_BCHW))
        reconstruction = error + self._feature_loss * distance
        loss: Tensor = deception + _LABEL_WEIGHT * recognition + _RECONSTRUCTION_WEIGHT * reconstruction
        _descend(self._optimizer, loss)
        return loss.detach()

    def _batch(self, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(real images, their labels, their codes, sampled codes, their labels), at random with replacement."""
        rows_B, drawn_B = (
            torch.randint(count, (self._size,), generator=random).numpy()
            for count in (len(self._training), len(self._drawn.labels_S))
        )
        real = self._training.batch(rows_B, self._device)
        assert real.labels_B is not None
        codes_BD, drawn_BD = (
            torch.from_numpy(codes_XD[chosen_B].astype(np.float32)).to(self._device)
            for codes_XD, chosen_B in ((self._codes_ND, rows_B), (self._drawn.codes_SD, drawn_B))
        )
        labels_B = torch.from_numpy(self._drawn.labels_S[drawn_B]).to(self._device)
        return real.x_BCHW, real.labels_B, codes_BD, drawn_BD, labels_B

    def result(self) -> dict[str, Tensor]:
        with self._average.applied():
            return {
                name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, value in self._decoder.state_dict().items()
            }


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _rate_factor(step: int, steps: int) -> float:
    """The learning rate as a share of its peak."""
    return min(1.0, (step + 1) / (_RISE * steps), max(_FINAL_RATE, (steps - step) / (_FALL * steps)))
