"""A small classifier. Its features serve the quality measures, its feature maps the feature loss, and its accuracy the
usefulness score. Network and training are the same for every arm of every comparison.

Legend: B batch, C channels, H height, W width, F features. Images are uint8 NHWC outside, float32 in [0, 1] NCHW
inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from generator.errors import SourceError, TrainingDiverged
from generator.models.autoencoders.augment import augment
from generator.models.autoencoders.devices import resolve_device
from generator.models.autoencoders.networks import channels_last, to_input
from generator.models.batched_rows import images_at_once
from generator.models.features.config import Budget
from generator.models.freed_memory import give_back_freed_memory
from generator.spec.image_size import AnySize, as_size, size_of
from generator.spec.seeding import permutation

WIDTH = 16  # default number of feature maps of the first block
_WARMUP = 0.15  # share of the steps in which the learning rate rises to its peak
_EVALUATION_BATCH = 1000
_SECOND_STREAM = 1 << 32  # keeps the random streams of the second set apart from those of the first


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """``images_NHWC`` uint8 with ``labels_N`` int64, one each, 0 .. classes - 1.

    ``probability_NC`` float32, rows that sum to 1: the class probabilities given by a judge. If present, a classifier
    is trained on them instead of the labels (Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network",
    2015).
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    probability_NC: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images_NHWC)


@final
class Classifier(nn.Module):
    """Three blocks of convolution and pooling with ``width``, 2 ``width`` and 4 ``width`` maps, and one linear layer.

    About 34,000 parameters with the default width at 32 pixels.
    """

    def __init__(self, size: AnySize, channels: int, classes: int, *, width: int = WIDTH) -> None:
        """``size``: of the images, a side or (width, height), at least 8 pixels a side."""
        super().__init__()
        positions = prod(side // 8 for side in as_size(size))
        widths = (channels, width, 2 * width, 4 * width)
        self.blocks = nn.ModuleList(_block(before, after) for before, after in pairwise(widths))
        self.head = nn.Linear(widths[-1] * positions, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """logits_BC, C classes."""
        logits_BC: Tensor = self.head(self.features(x_BCHW))
        return logits_BC

    def features(self, x_BCHW: Tensor) -> Tensor:
        """features_BF, all >= 0: the input of the linear layer. F is 4 * width * (H // 8) * (W // 8)."""
        return self.maps(x_BCHW)[-1].flatten(1)

    def classify(self, last_BFHW: Tensor) -> Tensor:
        """logits_BC of images whose last maps are ``last_BFHW``."""
        logits_BC: Tensor = self.head(last_BFHW.flatten(1))
        return logits_BC

    def maps(self, x_BCHW: Tensor) -> tuple[Tensor, ...]:
        """The maps after each block, the finest first; sides divided by 2, 4, 8. Differentiable in the input."""
        maps = []
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
            maps.append(x_BCHW)
        return tuple(maps)


def train_classifier(
    images_NHWC: np.ndarray,
    labels_N: np.ndarray,
    *,
    classes: int,
    seed: int,
    budget: Budget,
    device: str = "cpu",
    extra: LabelledImages | None = None,
    share: float = 0.5,
    width: int = WIDTH,
    probability_NC: np.ndarray | None = None,
) -> Classifier:
    """A classifier trained on uint8 ``images_NHWC`` with int64 ``labels_N`` in 0 .. ``classes`` - 1; frozen, ``eval``.

    SGD with momentum; the learning rate rises and falls linearly (Smith & Topin, "Super-convergence", 2018). Order,
    weights and augmentation depend on ``seed`` and step alone. With ``extra``, every batch takes ``share`` of its
    images from it; the number of steps stays the same. A set smaller than its part of a batch is repeated in it.
    ``width``: feature maps of the first block, 1 or more. ``probability_NC``: targets instead of the labels.
    Raises ``SourceError`` for images or labels that do not fit, ``SettingsError`` for the device, ``TrainingDiverged``.
    """
    labelled, torch_device = LabelledImages(images_NHWC, labels_N, probability_NC), resolve_device(device)
    sets = (labelled,) if extra is None else (labelled, extra)
    for dataset in sets:
        _check(dataset, reference=labelled, classes=classes)
    targets = _targets(sets, classes)
    extra_count = 0 if extra is None else round(share * budget.batch)
    samplers = [_RowSampler(len(labelled), budget.batch - extra_count, seed, 0)]
    samplers += [] if extra is None else [_RowSampler(len(extra), extra_count, seed, _SECOND_STREAM)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        size, channels = size_of(images_NHWC.shape), images_NHWC.shape[3]
        network = channels_last(Classifier(size, channels, classes, width=width)).to(torch_device)
    optimizer = torch.optim.SGD(network.parameters(), budget.peak_rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    for step in range(budget.steps):
        rows = [sampler.rows(step) for sampler in samplers]
        images_BHWC = np.concatenate([dataset.images_NHWC[r] for dataset, r in zip(sets, rows, strict=True)])
        targets_B = np.concatenate([target[r] for target, r in zip(targets, rows, strict=True)])
        x_BCHW = augment(to_input(images_BHWC, torch_device), budget.augmentation, seed=seed, step=step)
        optimizer.param_groups[0]["lr"] = _learning_rate(step, budget)
        _train_step(network, optimizer, x_BCHW, torch.from_numpy(targets_B).to(torch_device), step)
    give_back_freed_memory()
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def accuracy(network: Classifier, test: LabelledImages) -> float:
    """Share of ``test`` (images of the size and channels trained on) that ``network`` classifies correctly."""
    device = next(network.parameters()).device
    correct = 0
    batch = images_at_once(test.images_NHWC.shape[1:], _EVALUATION_BATCH)
    for begin in range(0, len(test), batch):
        rows = slice(begin, begin + batch)
        predicted_B = network(to_input(test.images_NHWC[rows], device)).argmax(1).cpu().numpy()
        correct += int((predicted_B == test.labels_N[rows]).sum())
    return correct / len(test)


def _block(before: int, after: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))


def _targets(sets: tuple[LabelledImages, ...], classes: int) -> list[np.ndarray]:
    """Training targets of each set: int64 labels, or float32 probabilities for all sets if any has them."""
    if all(dataset.probability_NC is None for dataset in sets):
        return [dataset.labels_N for dataset in sets]
    one_hot_CC = np.eye(classes, dtype=np.float32)
    return [
        one_hot_CC[dataset.labels_N] if dataset.probability_NC is None else dataset.probability_NC for dataset in sets
    ]


def _learning_rate(step: int, budget: Budget) -> float:
    rise, fall = (step + 1) / (_WARMUP * budget.steps), (budget.steps - step) / ((1.0 - _WARMUP) * budget.steps)
    return budget.peak_rate * min(1.0, rise, fall)


def _train_step(
    network: Classifier, optimizer: torch.optim.Optimizer, x_BCHW: Tensor, targets_B: Tensor, step: int
) -> None:
    loss = functional.cross_entropy(network(x_BCHW), targets_B)
    if not torch.isfinite(loss):
        hint = "try a smaller peak_rate"
        raise TrainingDiverged("loss", "a number", f"{loss.item()} in step {step + 1} of the classifier", hint)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@final
class _RowSampler:
    """The rows of batch after batch, without end, in a new order each epoch; a remainder is left out."""

    def __init__(self, count: int, batch: int, seed: int, stream: int) -> None:
        self._count, self._batch, self._seed, self._stream = count, batch, seed, stream
        self._usable = count - count % batch if 0 < batch <= count else count
        self._epoch, self._order_N = -1, np.empty(0, dtype=np.int64)

    def rows(self, step: int) -> np.ndarray:
        position, end, parts = step * self._batch, (step + 1) * self._batch, [np.empty(0, dtype=np.int64)]
        while position < end:
            epoch, first = divmod(position, self._usable)
            take = min(end - position, self._usable - first)
            parts.append(self._order(epoch)[first : first + take])
            position += take
        return np.concatenate(parts)

    def _order(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._order_N = permutation(self._seed, stream=self._stream + epoch, size=self._count)
            self._epoch = epoch
        return self._order_N


def _check(labelled_images: LabelledImages, *, reference: LabelledImages, classes: int) -> None:
    images_NHWC, labels_N = labelled_images.images_NHWC, labelled_images.labels_N
    if (
        images_NHWC.ndim != 4
        or images_NHWC.dtype != np.uint8
        or images_NHWC.shape[1:] != reference.images_NHWC.shape[1:]
    ):
        got = f"{images_NHWC.dtype} of shape {images_NHWC.shape}"
        raise SourceError("images", f"uint8 of shape (N, {', '.join(map(str, reference.images_NHWC.shape[1:]))})", got)
    if len(images_NHWC) < 1 or min(images_NHWC.shape[1:3]) < 8:
        raise SourceError("images", "at least one, of at least 8 pixels a side", f"shape {images_NHWC.shape}")
    if labels_N.shape != (len(images_NHWC),) or labels_N.dtype != np.int64:
        raise SourceError("labels", f"{len(images_NHWC)} int64, one per image", f"{labels_N.dtype} {labels_N.shape}")
    if labels_N.min() < 0 or labels_N.max() >= classes:
        outside = f"{labels_N.min()} .. {labels_N.max()}"
        raise SourceError("labels", f"0 .. {classes - 1}, as there are {classes} classes", outside)
    if labelled_images.probability_NC is not None:
        _check_probability(labelled_images.probability_NC, (len(labels_N), classes))


def _check_probability(probability_NC: np.ndarray, shape: tuple[int, int]) -> None:
    if probability_NC.shape != shape or probability_NC.dtype != np.float32:
        got = f"{probability_NC.dtype} of shape {probability_NC.shape}"
        raise SourceError("probability", f"float32 of shape {shape}, one row per image", got)
    if not (np.all(probability_NC >= 0.0) and np.allclose(probability_NC.sum(axis=1), 1.0, atol=1e-3)):
        raise SourceError("probability", "rows of numbers >= 0 that sum to 1", "other values")
