"""The training loop of all autoencoder families.

The order of the images and the noise of the loss are pure functions of the seed and the epoch. So a training that was
killed and resumed from its last checkpoint takes the same steps as an uninterrupted one. On CPU with the same number of
threads it ends with the same weights, bit for bit. With several processes, one for each device, the result also depends
on their number.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from generator.errors import DeviceExhausted, SettingsError, SourceError, TrainingDiverged
from generator.models.autoencoders import checkpoints
from generator.models.autoencoders.augment import augment
from generator.models.autoencoders.checkpoints import Checkpoint
from generator.models.autoencoders.config import AutoencoderConfig
from generator.models.autoencoders.devices import resolve_device, training_precision
from generator.models.autoencoders.families.base import Batch
from generator.models.autoencoders.families.registry import new_autoencoder
from generator.models.autoencoders.networks import to_input
from generator.models.autoencoders.replicas import ALONE, Replicas
from generator.models.autoencoders.settings import EpochRecord, TrainSettings
from generator.models.autoencoders.sharpening import FeatureNetwork, SharpeningLosses
from generator.models.batched_rows import images_at_once
from generator.models.weight_average import WeightAverage
from generator.spec.canonical import canonical_json, digest_of
from generator.spec.seeding import permutation

_WARMUP = 0.03  # share of all steps in which the learning rate rises to its peak
_FINAL_RATE = 0.02  # the learning rate at the end, as a share of its peak
_EVALUATION_BATCH = 512


@dataclass(frozen=True)
class TrainedAutoencoder:
    """A trained autoencoder: float32 weights on the CPU, of the epoch that was best on the holdout."""

    config: AutoencoderConfig
    encoder_state: dict[str, Tensor]
    decoder_state: dict[str, Tensor]
    history: tuple[EpochRecord, ...]  # determined by the seed and the images; no wall-clock times


@dataclass(frozen=True)
class Examples:
    """``images_NHWC`` uint8; ``labels_N`` int64 or ``None``."""

    images_NHWC: np.ndarray
    labels_N: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images_NHWC)

    def batch(self, rows: np.ndarray | slice, device: torch.device) -> Batch:
        labels_B = None if self.labels_N is None else torch.from_numpy(self.labels_N[rows]).to(device)
        return Batch(to_input(self.images_NHWC[rows], device), labels_B)


@dataclass(frozen=True)
class Progress:
    """Progress of a training: step ``step`` of ``steps`` in epoch ``epoch`` of at most ``epochs``, both from 1."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float


def train_autoencoder(
    config: AutoencoderConfig,
    settings: TrainSettings,
    training: Examples,
    holdout: Examples,
    *,
    classes: int = 0,
    features: FeatureNetwork | None = None,
    fingerprint: str = "",
    initial: Mapping[str, Tensor] | None = None,
    checkpoint: Path | None = None,
    replicas: Replicas = ALONE,
    on_step: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_networks: Callable[[nn.Module, nn.Module], None] | None = None,
) -> TrainedAutoencoder:
    """Train on images of ``config``'s size and channels, with labels in 0 .. ``classes`` - 1 if labelled.

    ``features``: the network whose maps ``settings.feature_loss`` compares; a resumed training needs the same one.
    ``initial``: weights to begin with, named ``encoder.<name>`` and ``decoder.<name>``; fresh ones by default.
    ``checkpoint``: the state is written to this path after each epoch, and training resumes from it if it exists; it
    must come from the same config, settings, source ``fingerprint`` and number of images. ``replicas``: the processes
    that train together, all called with the same arguments; the first one reads and writes the checkpoint, and all
    return the same. ``on_networks`` is called after each epoch with encoder and decoder, to look at and not to change;
    they are in evaluation mode, with averaged weights where there are some.
    Raises ``SourceError`` for images that do not fit, ``SpecError`` for a model or setting without the labels or
    features it needs, or a batch that is too small to be shared, ``SettingsError`` for an unavailable device or a
    checkpoint of another training, ``TrainingDiverged`` if the loss is not finite, and ``DeviceExhausted`` if the
    device runs out of memory.
    """
    device = resolve_device(settings.device)
    for name, examples, min_count in (("train", training, 2), ("holdout", holdout, 1)):
        _check_images(name, examples.images_NHWC, config, min_count)
    trainer = _Trainer(config, settings, device, training, holdout, classes, features, replicas)
    if initial is not None:
        trainer.begin_with(initial)
    identity = _identity(config, settings, fingerprint, len(training), len(holdout))
    if (stored := replicas.from_first(lambda: _stored(checkpoint, identity))) is not None:
        trainer.restore(stored)
    with translate_out_of_memory(device):
        while not trainer.is_finished:
            record = trainer.train_epoch(on_step, on_networks)
            if checkpoint is not None and replicas.is_first:
                checkpoints.write(checkpoint, trainer.to_checkpoint(identity))
            if on_epoch is not None:
                on_epoch(record)
    return trainer.result()


class _Trainer:
    """The state of one training: network, optimiser, history, and the best weights so far."""

    def __init__(
        self,
        config: AutoencoderConfig,
        settings: TrainSettings,
        device: torch.device,
        training: Examples,
        holdout: Examples,
        classes: int,
        features: FeatureNetwork | None,
        replicas: Replicas,
    ) -> None:
        self._config, self._settings, self._device = config, settings, device
        self._training, self._holdout, self._replicas = training, holdout, replicas
        self._batch = min(settings.batch, len(training))
        replicas.check_batch(self._batch)
        self._steps = len(training) // self._batch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(settings.seed, "weights"))
            self._network = new_autoencoder(config, settings, classes).to(device)
            self._sharpening = SharpeningLosses(settings, config.channels, features).to(device)
        self._network.add_module("sharpening", self._sharpening)  # so that it is trained, saved and restored too
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._has_sharpening = settings.feature_loss > 0.0 or settings.patch_loss > 0.0
        self._average = WeightAverage(self._network, self._network.averaging) if self._network.averaging else None
        self._history: list[EpochRecord] = []
        self._best_state = _copy_state(self._network)

    def begin_with(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the fresh weights of encoder and decoder."""
        self._network.load_state_dict(self._network.state_dict() | dict(weights))
        self._best_state = _copy_state(self._network)
        if self._average is not None:
            self._average = WeightAverage(self._network, self._network.averaging)

    @property
    def is_finished(self) -> bool:
        if not self._history:
            return False
        since_best = len(self._history) - max((record.epoch for record in self._history if record.best), default=0)
        patience_exhausted = self._is_holdout_valid(len(self._history)) and since_best >= self._settings.patience
        return len(self._history) >= self._settings.epochs or patience_exhausted

    def _is_holdout_valid(self, epoch: int) -> bool:
        """Whether the holdout loss after this epoch (from 1) is meaningful (``holdout_valid_from``)."""
        return (
            epoch >= max(self._network.holdout_valid_from, self._sharpening.holdout_valid_from) * self._settings.epochs
        )

    def train_epoch(
        self,
        on_step: Callable[[Progress], None] | None,
        on_networks: Callable[[nn.Module, nn.Module], None] | None,
    ) -> EpochRecord:
        """One pass over the training images, and one over the holdout."""
        number = len(self._history)
        purpose = self._replicas.purpose(f"noise {number}")
        noise = torch.Generator(self._device).manual_seed(derive_seed(self._settings.seed, purpose))
        order_N = permutation(self._settings.seed, stream=number, size=len(self._training))
        self._network.train()
        total = 0.0
        for step in range(self._steps):
            rows_B = self._replicas.share_of(order_N[step * self._batch : (step + 1) * self._batch])
            loss = self._train_step(number, step, rows_B, noise)
            total += loss
            if on_step is not None:
                on_step(Progress(number + 1, self._settings.epochs, step + 1, self._steps, loss))
        self._replicas.average_statistics(self._network)
        with nullcontext() if self._average is None else self._average.applied():
            record = self._evaluate(number + 1, total / self._steps)
            if on_networks is not None:
                on_networks(self._network.encoder, self._network.decoder)
        return record

    def _train_step(self, epoch: int, step: int, rows_B: np.ndarray, noise: torch.Generator) -> float:
        progress = (epoch * self._steps + step) / (self._settings.epochs * self._steps)
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * self._network.learning_rate_factor * _lr_schedule(progress)
        batch = self._augment(self._training.batch(rows_B, self._device), epoch * self._steps + step)
        with training_precision(self._device, self._settings.precision):
            total = len(rows_B) / self._batch * self._total_loss(batch, progress, noise)
        loss = self._loss_of_all(total)
        if not math.isfinite(loss):
            hint = "try a smaller learning_rate"
            raise TrainingDiverged("loss", "a number", f"{loss} in step {step + 1} of epoch {epoch + 1}", hint)
        self._optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        self._replicas.add_gradients(self._network)
        self._optimizer.step()
        if self._average is not None:
            self._average.update(epoch * self._steps + step, self._settings.epochs * self._steps)
        return loss

    def _total_loss(self, batch: Batch, progress: float, noise: torch.Generator) -> Tensor:
        losses = self._network.losses(batch, progress=progress, noise=noise)
        if not self._has_sharpening or losses.output_BCHW is None:
            return losses.total
        target_BCHW = batch.x_BCHW if losses.target_BCHW is None else losses.target_BCHW
        return losses.total + self._sharpening.training_loss(target_BCHW, losses.output_BCHW, progress)

    def _loss_of_all(self, total: Tensor) -> float:
        """The loss of the whole batch: the sum of what all processes have of it."""
        summed = total.detach().clone()
        self._replicas.add_up([summed])
        return summed.item()

    def _augment(self, batch: Batch, step: int) -> Batch:
        """``batch`` after the augmentation of this step, counted from the first epoch."""
        if not self._settings.augmentation.is_active:
            return batch
        seed = derive_seed(self._settings.seed, self._replicas.purpose("augmentation"))
        return Batch(augment(batch.x_BCHW, self._settings.augmentation, seed=seed, step=step), batch.labels_B)

    def _evaluate(self, epoch: int, train_loss: float) -> EpochRecord:
        holdout_loss, terms = self._holdout_losses()
        if not math.isfinite(holdout_loss):
            raise TrainingDiverged("holdout loss", "a number", f"{holdout_loss} after epoch {epoch}")
        earlier_losses = [record.holdout_loss for record in self._history if self._is_holdout_valid(record.epoch)]
        best = self._is_holdout_valid(epoch) and all(holdout_loss < earlier_loss for earlier_loss in earlier_losses)
        if best:
            self._best_state = _copy_state(self._network)
        record = EpochRecord(
            epoch=epoch, train_loss=train_loss, holdout_loss=holdout_loss, holdout_terms=terms, best=best
        )
        self._history.append(record)
        return record

    def _holdout_losses(self) -> tuple[float, dict[str, float]]:
        """The deterministic losses as means over the holdout, in ``eval`` mode; each process looks at its share."""
        parts = self._replicas.gather(self._share_of_holdout_losses())
        names = sorted({name for _, terms in parts for name in terms})
        return sum(total for total, _ in parts), {n: sum(terms.get(n, 0.0) for _, terms in parts) for n in names}

    @torch.inference_mode()
    def _share_of_holdout_losses(self) -> tuple[float, dict[str, float]]:
        self._network.eval()
        total, terms, count = 0.0, dict[str, float](), len(self._holdout)
        at_once = images_at_once(self._holdout.images_NHWC.shape[1:], _EVALUATION_BATCH)
        for begin in range(self._replicas.rank * at_once, count, self._replicas.count * at_once):
            batch = self._holdout.batch(slice(begin, begin + at_once), self._device)
            losses = self._network.losses(batch, progress=1.0, noise=None)
            assert losses.output_BCHW is not None  # not ``None`` at progress 1
            extra_loss, extra_terms = self._sharpening.holdout_loss(batch.x_BCHW, losses.output_BCHW)
            share = len(batch.x_BCHW) / count
            total += share * (losses.total + extra_loss).item()
            terms = {n: terms.get(n, 0.0) + share * value.item() for n, value in (losses.terms | extra_terms).items()}
        return total, terms

    def to_checkpoint(self, identity: str) -> Checkpoint:
        return Checkpoint(
            identity,
            tuple(self._history),
            _copy_state(self._network),
            self._best_state,
            self._optimizer_state(),
            {} if self._average is None else self._average.state(),
        )

    def _optimizer_state(self) -> dict[str, Tensor]:
        """The optimiser's state, one tensor per parameter and moment; zeros for parameters without state yet."""
        tensors = dict[str, Tensor]()
        for index, parameter in enumerate(self._optimizer.param_groups[0]["params"]):
            zeros, more_zeros = (
                torch.zeros_like(parameter),
                torch.zeros_like(parameter),
            )  # safetensors does not save shared tensors
            fresh = {"step": torch.zeros(()), "exp_avg": zeros, "exp_avg_sq": more_zeros}
            state = self._optimizer.state.get(parameter) or fresh
            tensors |= {f"{index}.{name}": value for name, value in state.items()}
        return tensors

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resume from ``checkpoint``. Raises ``SettingsError`` if its weights are of another network."""
        try:
            self._network.load_state_dict(checkpoint.current)
            self._restore_optimizer(checkpoint.optimizer)
            if self._average is not None:
                self._average.restore(checkpoint.average)
        except (KeyError, RuntimeError) as error:
            raise SettingsError("checkpoint", "the weights of this network", error, checkpoints.HINT) from error
        self._history, self._best_state = list(checkpoint.history), checkpoint.best

    def _restore_optimizer(self, optimizer: dict[str, Tensor]) -> None:
        """Moments get the memory layout of their parameters, which safetensors does not store."""
        for index, parameter in enumerate(self._optimizer.param_groups[0]["params"]):
            values = {name: optimizer[f"{index}.{name}"] for name in ("exp_avg", "exp_avg_sq")}
            self._optimizer.state[parameter] = {
                "step": optimizer[f"{index}.step"],
                **{name: torch.empty_like(parameter).detach().copy_(value) for name, value in values.items()},
            }

    def result(self) -> TrainedAutoencoder:
        encoder = {
            name.removeprefix("encoder."): v for name, v in self._best_state.items() if name.startswith("encoder.")
        }
        decoder = {
            name.removeprefix("decoder."): v for name, v in self._best_state.items() if name.startswith("decoder.")
        }
        return TrainedAutoencoder(self._config, encoder, decoder, tuple(self._history))


def _stored(checkpoint: Path | None, identity: str) -> Checkpoint | None:
    """The checkpoint from which to resume, if there is one."""
    return checkpoints.read(checkpoint, identity) if checkpoint is not None and checkpoint.exists() else None


def _lr_schedule(progress: float) -> float:
    """The learning rate as a share of its peak: a linear rise, then half a cosine (Loshchilov & Hutter, ICLR 2017)."""
    rise = min(1.0, (progress + 1e-3) / _WARMUP)
    return rise * (_FINAL_RATE + (1.0 - _FINAL_RATE) * 0.5 * (1.0 + math.cos(math.pi * progress)))


def _check_images(name: str, images_NHWC: np.ndarray, config: AutoencoderConfig, min_count: int) -> None:
    wanted = (config.image_size.height, config.image_size.width, config.channels)
    if images_NHWC.dtype != np.uint8 or images_NHWC.shape[1:] != wanted:
        got = f"{images_NHWC.dtype} of shape {images_NHWC.shape}"
        raise SourceError(f"{name} images", f"uint8 of shape (N, {', '.join(map(str, wanted))})", got)
    if len(images_NHWC) < min_count:
        raise SourceError(f"{name} images", f"at least {min_count}", len(images_NHWC))


def _identity(config: AutoencoderConfig, settings: TrainSettings, fingerprint: str, *counts: int) -> str:
    """Digest of everything but the machine that determines the weights; a checkpoint must have the same."""
    facts = {
        "config": config.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json", exclude={"device"}),
        "fingerprint": fingerprint,
        "counts": counts,
    }
    return digest_of(canonical_json(facts))


def derive_seed(seed: int, purpose: str) -> int:
    """A 63-bit seed for one purpose, derived by hashing; unlike seed + 1, it differs for every seed and purpose."""
    digest = hashlib.sha256(f"latentmill training 1\n{seed}\n{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _copy_state(network: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and running statistics, on the CPU, contiguous."""
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }


@contextmanager
def translate_out_of_memory(device: torch.device) -> Iterator[None]:
    """Deterministic kernels inside the block, and ``DeviceExhausted`` if ``device`` runs out of memory."""
    try:
        with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
            yield
    except torch.OutOfMemoryError as error:
        raise DeviceExhausted("batch", f"a batch that fits into the memory of {device}", str(error)) from error
