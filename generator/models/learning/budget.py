"""From a time budget to step counts: which model, how many epochs, and which latent distribution fit into it.

A short calibration on this machine measures what a step of each candidate costs. The counts that follow are stored in
the bundle's settings; the same counts, seed and threads give the same weights, whatever the machine's speed is later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import floor
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generator.errors import SpecError
from generator.models.autoencoders.config import AutoencoderConfig
from generator.models.autoencoders.decoder_tuning import BATCH, DrawnCodes, tune_decoder
from generator.models.autoencoders.devices import resolve_device, training_precision
from generator.models.autoencoders.families.base import Batch
from generator.models.autoencoders.families.registry import new_autoencoder
from generator.models.autoencoders.graphs.config import GraphConfig
from generator.models.autoencoders.networks import channels_last, to_input
from generator.models.autoencoders.settings import TrainSettings
from generator.models.autoencoders.sharpening import SharpeningLosses
from generator.models.autoencoders.training import Examples, TrainedAutoencoder
from generator.models.features.classifier import WIDTH, Classifier
from generator.models.features.config import FEATURE_BUDGET, Budget
from generator.models.latents.config import MapSettings, SamplerSettings, TransportSettings
from generator.models.latents.transport_map import VelocityNetwork
from generator.models.learning.defaults import pretrained_sampler, recommended_model, recommended_sampler
from generator.models.screening.config import JudgeSettings
from generator.sources import Source

_WIDTHS, _MAP_WIDTHS = (128, 96, 64, 48, 32), (1024, 768, 512, 256)  # the largest that gets enough epochs is taken
_MIN_EPOCHS, _MIN_MAP_EPOCHS = 4, 20  # below, a smaller network learns more
_MAX_EPOCHS, _MAX_MAP_EPOCHS = 400, 400
_MIN_STEPS, _MIN_BATCH = 3000, 16  # of the autoencoder: more steps of smaller batches where there is little time
_CLASSIFIER_SHARE, _MIN_CLASSIFIER_STEPS = 0.1, 50  # of the judge, and of the classifier for the feature loss
_AUTOENCODER_SHARE, _FIT_SHARE = 0.55, 0.35  # of the time that judge and feature network leave; the rest is reserve
_FIT_BESIDE_TUNING_SHARE, _TUNING_SHARE = 0.15, 0.3  # where the decoder is tuned on sampled codes
_MIN_TUNING_STEPS, _MAX_TUNING_STEPS = 100, 20_000
_ENCODING_SHARE = 0.5  # of an epoch of fine-tuning: encoding all images, and decoding some
_FINETUNING_SHARE, _MAX_FINETUNING_EPOCHS = 0.85, 40
_ROUNDS = 3  # timed steps of a calibration; the fastest counts


@dataclass(frozen=True)
class TrainingPlan:
    """What a budget buys. ``seconds``: the expected time of each stage. ``trains``: the autoencoder is trained."""

    config: AutoencoderConfig
    settings: TrainSettings
    sampler: SamplerSettings
    judge: JudgeSettings | None
    seconds: dict[str, float]
    trains: bool = True

    def describe(self) -> str:
        """One line for the user."""
        stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
        fitted: str = self.sampler.family
        if isinstance(self.sampler, TransportSettings) and self.sampler.map is not None:
            fitted += f" of width {self.sampler.map.width}, {self.sampler.epochs} epochs"
        width = getattr(self.config, "width", None)
        model = self.config.family + (f" of width {width}" if width else "")
        model = "the pretrained autoencoder" if self.config.family == "graph" else model
        epochs = f"{self.settings.epochs} epochs in batches of {self.settings.batch}" if self.trains else "as it is"
        fitted += f", {self.settings.tuning_steps} steps on sampled codes" if self.settings.tuning_steps else ""
        return f"{model}, {self.config.latent_dim} numbers a code, {epochs}; {fitted}; {stages}"


def plan_training(
    source: Source,
    seconds: float,
    *,
    family: str,
    settings: TrainSettings,
    judge: JudgeSettings | None,
    options: Mapping[str, Any] = MappingProxyType({}),
    processes: int = 1,
) -> TrainingPlan:
    """The model, epochs and sampler for a training of ``source`` that takes about ``seconds`` on this machine.

    ``settings``: everything but the number of epochs. ``options``: fields of the model that are given. ``processes``
    that train the autoencoder, each on a device of its own. Raises ``SpecError`` if one epoch of the smallest model
    does not fit, naming what would.
    """
    device = resolve_device(settings.device)
    images = max(settings.batch, floor(len(source) * (1.0 - settings.holdout)))
    options, judge, classifiers = _choose_classifiers(source, seconds, family, options, settings, judge, device)
    left, share = seconds - classifiers, _autoencoder_share(recommended_sampler(source, family), settings)
    training = partial(_training_seconds, settings=settings, source=source, device=device, processes=processes)
    config, epochs, spent = _choose_model(source, family, options, images, share * left, training)
    if epochs < 1:
        needed = classifiers + spent / share
        raise SpecError(
            "budget", f"at least {needed:.0f} seconds for one epoch on this machine", f"{seconds:g} seconds"
        )
    stages = {"autoencoder": spent, "judge and features": classifiers}
    fit_share = _FIT_SHARE
    if settings.tuning_steps:
        fit_share = _FIT_BESIDE_TUNING_SHARE
        steps, stages["decoder tuning"] = _tuning_steps(source, config, settings, _TUNING_SHARE * left, device)
        settings = settings.model_copy(update={"tuning_steps": steps})
    sampler, stages["latent distribution"] = _choose_sampler(source, config, images, fit_share * left, device)
    return TrainingPlan(config, _with_epochs(settings, epochs, images), sampler, judge, stages)


def plan_pretrained(
    source: Source,
    seconds: float,
    config: GraphConfig,
    *,
    settings: TrainSettings,
    judge: JudgeSettings | None,
    processes: int = 1,
) -> TrainingPlan:
    """How long to train the decoder of a pretrained autoencoder further, so that all takes about ``seconds``.

    ``processes`` that train it, each on a device of its own; the first one does all else. Raises ``SpecError`` if there
    is no time to encode the images.
    """
    device = resolve_device(settings.device)
    images = max(settings.batch, floor(len(source) * (1.0 - settings.holdout)))
    _, judge, classifiers = _choose_classifiers(source, seconds, "graph", {}, settings, judge, device)
    epoch = images * _training_seconds(config, settings, source, device, processes)
    encoding = _ENCODING_SHARE * processes * epoch
    left = seconds - classifiers - encoding
    if left < 0.0:
        needed = f"at least {seconds - left:.0f} seconds to encode the images on this machine"
        raise SpecError("budget", needed, f"{seconds:g} seconds")
    epochs = min(_MAX_FINETUNING_EPOCHS, floor(_FINETUNING_SHARE * left / epoch))
    stages = {"encoding": encoding, "fine-tuning": epochs * epoch, "judge and features": classifiers}
    settings = settings.model_copy(update={"epochs": max(1, epochs)})
    return TrainingPlan(config, settings, pretrained_sampler(source), judge, stages, trains=epochs > 0)


def _autoencoder_share(sampler: SamplerSettings, settings: TrainSettings) -> float:
    """The autoencoder's share of the time that classifiers leave: with that of the fit, if no map is to be learned, and
    without that of the decoder's tuning."""
    is_quick = isinstance(sampler, TransportSettings) and sampler.map is None
    tuning = _TUNING_SHARE + _FIT_BESIDE_TUNING_SHARE - _FIT_SHARE if settings.tuning_steps else 0.0
    return _AUTOENCODER_SHARE + (_FIT_SHARE if is_quick else 0.0) - tuning


def _tuning_steps(
    source: Source, config: AutoencoderConfig, settings: TrainSettings, seconds: float, device: torch.device
) -> tuple[int, float]:
    """(steps on sampled codes in about ``seconds``, 0 if few would be left; the seconds they take)."""
    step = _tuning_seconds(source, config, settings, device)
    steps = min(_MAX_TUNING_STEPS, floor(seconds / step))
    return (steps, steps * step) if steps >= _MIN_TUNING_STEPS else (0, 0.0)


def _with_epochs(settings: TrainSettings, epochs: int, images: int) -> TrainSettings:
    """``settings`` for so many epochs; the batch is halved until there are enough steps, or it is small."""
    batch = settings.batch
    while batch > _MIN_BATCH and epochs * images // batch < _MIN_STEPS:
        batch //= 2
    return settings.model_copy(
        update={"epochs": epochs, "patience": max(settings.patience, epochs // 5), "batch": batch}
    )


def _choose_classifiers(
    source: Source,
    seconds: float,
    family: str,
    options: Mapping[str, Any],
    settings: TrainSettings,
    judge: JudgeSettings | None,
    device: torch.device,
) -> tuple[Mapping[str, Any], JudgeSettings | None, float]:
    """The model's options and the judge with step counts for a share of ``seconds``, and the seconds they take."""
    if len(source.class_names) < 2:
        return options, judge, 0.0
    total, share = 0.0, _CLASSIFIER_SHARE * seconds
    if judge is not None:
        steps, spent = _classifier_steps(source, judge.width, judge.budget, share / judge.members, device)
        judge = judge.model_copy(update={"budget": judge.budget.model_copy(update={"steps": steps})})
        total += judge.members * spent
    if settings.feature_loss:
        steps, spent = _classifier_steps(source, WIDTH, FEATURE_BUDGET, share, device)
        options = {"feature_steps": steps, **options} if family == "spatial" else options
        total += spent
    return options, judge, total


def _choose_model(
    source: Source,
    family: str,
    options: Mapping[str, Any],
    images: int,
    seconds: float,
    image_seconds: Callable[[AutoencoderConfig], float],
) -> tuple[AutoencoderConfig, int, float]:
    """(config, epochs, expected seconds): the widest model with enough epochs; one epoch's seconds if none fits.

    ``image_seconds``: seconds of training per image.
    """
    widths = _WIDTHS if family == "spatial" and "width" not in options else (None,)
    for width in widths:
        config = recommended_model(source, family, **options, **({} if width is None else {"width": width}))
        epoch = images * image_seconds(config)
        epochs = min(_MAX_EPOCHS, floor(seconds / epoch))
        is_enough = epochs >= _MIN_EPOCHS and epochs * images // _MIN_BATCH >= _MIN_STEPS // 2
        if is_enough or width == widths[-1]:
            return config, epochs, max(1, epochs) * epoch
    raise AssertionError("there is a width")


def _choose_sampler(
    source: Source, config: AutoencoderConfig, images: int, seconds: float, device: torch.device
) -> tuple[SamplerSettings, float]:
    """(settings, expected seconds); the family is the recommended one."""
    sampler = recommended_sampler(source, config.family)
    if not isinstance(sampler, TransportSettings):
        return sampler, seconds
    if sampler.map is None:
        return sampler, 0.0
    for width in _MAP_WIDTHS:
        network = MapSettings(width=width)
        epoch = images * _map_seconds(network, config.latent_dim, len(source.class_names), sampler.batch, device)
        epochs = min(_MAX_MAP_EPOCHS, floor(seconds / epoch))
        if epochs >= _MIN_MAP_EPOCHS or (width == _MAP_WIDTHS[-1] and epochs >= 1):
            return sampler.model_copy(update={"map": network, "epochs": epochs}), epochs * epoch
    return sampler.model_copy(update={"map": None}), 0.0


def _training_seconds(
    config: AutoencoderConfig, settings: TrainSettings, source: Source, device: torch.device, processes: int
) -> float:
    """Seconds of a training step per image, where each of ``processes`` takes its share of a batch."""
    features = None
    if settings.feature_loss:
        features = channels_last(Classifier(source.size, source.channels, max(2, len(source.class_names))))
        features = features.eval().requires_grad_(False).to(device)
    with torch.random.fork_rng(devices=[]):
        network = new_autoencoder(config, settings, len(source.class_names)).to(device)
        sharpening = SharpeningLosses(settings, config.channels, features).to(device)
    batch = _batch(source, max(1, settings.batch // processes), device)
    random = torch.Generator(device).manual_seed(0)

    def step() -> Tensor:
        with training_precision(device, settings.precision):
            losses = network.losses(batch, progress=0.5, noise=random)
            assert losses.output_BCHW is not None
            target_BCHW = batch.x_BCHW if losses.target_BCHW is None else losses.target_BCHW
            total: Tensor = losses.total + sharpening.training_loss(target_BCHW, losses.output_BCHW, 0.5)
        return total

    return _step_seconds(step, device) / len(batch.x_BCHW) / processes


def _tuning_seconds(source: Source, config: AutoencoderConfig, settings: TrainSettings, device: torch.device) -> float:
    """Seconds of a step on sampled codes: the fastest of some, after a first one that is not counted."""
    assert source.labels_N is not None
    with torch.random.fork_rng(devices=[]):
        features = channels_last(Classifier(source.size, source.channels, len(source.class_names)))
        network = new_autoencoder(config, settings, len(source.class_names))
    decoder = {name: value.detach() for name, value in network.decoder.state_dict().items()}
    rows = np.arange(BATCH) % len(source)
    codes_BD, ends = np.zeros((BATCH, config.latent_dim)), list[float]()
    tune_decoder(
        TrainedAutoencoder(config, {}, decoder, ()),
        settings.model_copy(update={"tuning_steps": _ROUNDS + 1}),
        Examples(source.images_NHWC[rows], source.labels_N[rows]),
        codes_BD,
        DrawnCodes(codes_BD, source.labels_N[rows]),
        features.eval().requires_grad_(False).to(device),
        seed=0,
        device=device,
        on_step=lambda *_: ends.append(time.perf_counter()),
    )
    return min(end - begin for begin, end in pairwise(ends))


def _map_seconds(network: MapSettings, dims: int, classes: int, batch: int, device: torch.device) -> float:
    """Seconds of a training step per code."""
    with torch.random.fork_rng(devices=[]):
        velocity = VelocityNetwork(network, dims, max(1, classes)).to(device)
    x_BD, time_B = torch.randn(batch, dims, device=device), torch.rand(batch, device=device)
    labels_B = torch.zeros(batch, dtype=torch.int64, device=device)

    def step() -> Tensor:
        modulation_BE = velocity.time_modulation(time_B) + velocity.class_modulation(labels_B)
        loss: Tensor = velocity(x_BD, modulation_BE).square().mean()
        return loss

    return _step_seconds(step, device) / batch


def _classifier_steps(
    source: Source, width: int, budget: Budget, seconds: float, device: torch.device
) -> tuple[int, float]:
    """(training steps of a classifier in about ``seconds``, at most the budget's; the seconds they take)."""
    size, classes = source.size, len(source.class_names)
    network = channels_last(Classifier(size, source.channels, classes, width=width)).to(device)
    x_BCHW = _batch(source, budget.batch, device).x_BCHW
    step = _step_seconds(lambda: network(x_BCHW).square().mean(), device)
    steps = min(budget.steps, max(_MIN_CLASSIFIER_STEPS, floor(seconds / step)))
    return steps, steps * step


def _batch(source: Source, count: int, device: torch.device) -> Batch:
    rows = np.arange(count) % len(source)
    labels_B = None if source.labels_N is None else torch.from_numpy(source.labels_N[rows]).to(device)
    return Batch(to_input(source.images_NHWC[rows], device), labels_B)


def _step_seconds(step: Callable[[], Tensor], device: torch.device) -> float:
    """The fastest of some steps with their gradients, after a first one that is not counted."""
    fastest = float("inf")
    for number in range(_ROUNDS + 1):
        clock = time.perf_counter()
        step().backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest = min(fastest, time.perf_counter() - clock) if number else fastest
    return fastest
