"""A small classifier: its features measure images, its feature maps sharpen them, its accuracy says what they are
good for. One network and one way to train it, for every arm of every comparison.

Legend: B batch, C channels, H = W = size, F features. Images are uint8 NHWC outside, float32 in [0, 1] NCHW inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from generator.errors import SourceError, TrainingDiverged
from generator.models.autoencoders.augment import augment
from generator.models.autoencoders.devices import resolve_device
from generator.models.autoencoders.networks import channels_last, to_input
from generator.models.features.config import Budget
from generator.spec.seeding import permutation

WIDTH = 16  # feature maps of the first block, by default
_WARMUP = 0.15  # share of the steps in which the learning rate climbs to its peak
_EVALUATION_BATCH = 1000
_SECOND_STREAM = 1 << 32  # apart from the streams of the first set of images


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """``images_NHWC`` uint8 with ``labels_N`` int64, one each, 0 .. classes - 1.

    ``probability_NC`` float32, rows that sum to 1: how likely each class is, as a judge sees it. Where it is given, it
    is what a classifier learns, instead of the labels (Hinton, Vinyals & Dean, "Distilling the knowledge in a neural
    network", 2015).
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    probability_NC: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images_NHWC)


@final
class Classifier(nn.Module):
    """Three blocks of convolution and pooling with ``width``, twice and four times as many maps, one linear layer.

    With the default width about 34,000 parameters at 32 pixels.
    """

    def __init__(self, size: int, channels: int, classes: int, *, width: int = WIDTH) -> None:
        super().__init__()
        widths = (channels, width, 2 * width, 4 * width)
        self.blocks = nn.ModuleList(_block(before, after) for before, after in pairwise(widths))
        self.head = nn.Linear(widths[-1] * (size // 8) ** 2, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """logits_BC, C classes."""
        logits_BC: Tensor = self.head(self.features(x_BCHW))
        return logits_BC

    def features(self, x_BCHW: Tensor) -> Tensor:
        """features_BF, all >= 0: what the linear layer sees. F is 4 * width * (size // 8) ** 2."""
        return self.maps(x_BCHW)[-1].flatten(1)

    def maps(self, x_BCHW: Tensor) -> tuple[Tensor, ...]:
        """The maps after each block, the finest first; sides size // 2, // 4, // 8. Gradients reach the input."""
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
    beside: LabelledImages | None = None,
    share: float = 0.5,
    width: int = WIDTH,
    probability_NC: np.ndarray | None = None,
) -> Classifier:
    """A classifier trained on uint8 ``images_NHWC`` with int64 ``labels_N`` in 0 .. ``classes`` - 1; frozen, ``eval``.

    SGD with momentum; the rate climbs and falls in straight lines (Smith & Topin, "Super-convergence", 2018). Order,
    weights and augmentation depend on ``seed`` and step alone. With ``beside``, every batch has ``share`` of its images
    from there, and the number of steps is the same. Fewer images than a batch holds come several times in each.
    ``width``: feature maps of the first block, 1 or more. ``probability_NC``: learned instead of the labels.
    Raises ``SourceError`` for images or labels that do not fit, ``SettingsError`` for the device, ``TrainingDiverged``.
    """
    given, where = LabelledImages(images_NHWC, labels_N, probability_NC), resolve_device(device)
    sets = (given,) if beside is None else (given, beside)
    for each in sets:
        _check(each, like=given, classes=classes)
    targets = _targets(sets, classes)
    drawn = 0 if beside is None else round(share * budget.batch)
    decks = [_RowSampler(len(given), budget.batch - drawn, seed, 0)]
    decks += [] if beside is None else [_RowSampler(len(beside), drawn, seed, _SECOND_STREAM)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = channels_last(Classifier(images_NHWC.shape[1], images_NHWC.shape[3], classes, width=width)).to(where)
    optimizer = torch.optim.SGD(network.parameters(), budget.peak_rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    for step in range(budget.steps):
        rows = [deck.rows(step) for deck in decks]
        images_BHWC = np.concatenate([each.images_NHWC[r] for each, r in zip(sets, rows, strict=True)])
        targets_B = np.concatenate([each[r] for each, r in zip(targets, rows, strict=True)])
        x_BCHW = augment(to_input(images_BHWC, where), budget.augmentation, seed=seed, step=step)
        optimizer.param_groups[0]["lr"] = _learning_rate(step, budget)
        _train_step(network, optimizer, x_BCHW, torch.from_numpy(targets_B).to(where), step)
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def accuracy(network: Classifier, test: LabelledImages) -> float:
    """Share of ``test``, images of the size and channels trained on, that ``network`` names rightly."""
    device = next(network.parameters()).device
    right = 0
    for begin in range(0, len(test), _EVALUATION_BATCH):
        rows = slice(begin, begin + _EVALUATION_BATCH)
        told_B = network(to_input(test.images_NHWC[rows], device)).argmax(1).cpu().numpy()
        right += int((told_B == test.labels_N[rows]).sum())
    return right / len(test)


def _block(before: int, after: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))


def _targets(sets: tuple[LabelledImages, ...], classes: int) -> list[np.ndarray]:
    """What each set's images are to be told as: int64 labels, or float32 probabilities for all where any has some."""
    if all(each.probability_NC is None for each in sets):
        return [each.labels_N for each in sets]
    sure_CC = np.eye(classes, dtype=np.float32)
    return [sure_CC[each.labels_N] if each.probability_NC is None else each.probability_NC for each in sets]


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
    """Rows of one batch after the other, in a new order each epoch, without end; a remainder is left out."""

    def __init__(self, count: int, batch: int, seed: int, stream: int) -> None:
        self._count, self._batch, self._seed, self._stream = count, batch, seed, stream
        self._usable = count - count % batch if 0 < batch <= count else count
        self._epoch, self._order_N = -1, np.empty(0, dtype=np.int64)

    def rows(self, step: int) -> np.ndarray:
        at, end, parts = step * self._batch, (step + 1) * self._batch, [np.empty(0, dtype=np.int64)]
        while at < end:
            epoch, first = divmod(at, self._usable)
            take = min(end - at, self._usable - first)
            parts.append(self._order(epoch)[first : first + take])
            at += take
        return np.concatenate(parts)

    def _order(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._order_N = permutation(self._seed, stream=self._stream + epoch, size=self._count)
            self._epoch = epoch
        return self._order_N


def _check(given: LabelledImages, *, like: LabelledImages, classes: int) -> None:
    images_NHWC, labels_N = given.images_NHWC, given.labels_N
    if images_NHWC.ndim != 4 or images_NHWC.dtype != np.uint8 or images_NHWC.shape[1:] != like.images_NHWC.shape[1:]:
        got = f"{images_NHWC.dtype} of shape {images_NHWC.shape}"
        raise SourceError("images", f"uint8 of shape (N, {', '.join(map(str, like.images_NHWC.shape[1:]))})", got)
    if len(images_NHWC) < 1 or images_NHWC.shape[1] < 8:
        raise SourceError("images", "at least one, of at least 8 pixels", f"shape {images_NHWC.shape}")
    if labels_N.shape != (len(images_NHWC),) or labels_N.dtype != np.int64:
        raise SourceError("labels", f"{len(images_NHWC)} int64, one per image", f"{labels_N.dtype} {labels_N.shape}")
    if labels_N.min() < 0 or labels_N.max() >= classes:
        outside = f"{labels_N.min()} .. {labels_N.max()}"
        raise SourceError("labels", f"0 .. {classes - 1}, as there are {classes} classes", outside)
    if given.probability_NC is not None:
        _check_probability(given.probability_NC, (len(labels_N), classes))


def _check_probability(probability_NC: np.ndarray, shape: tuple[int, int]) -> None:
    if probability_NC.shape != shape or probability_NC.dtype != np.float32:
        got = f"{probability_NC.dtype} of shape {probability_NC.shape}"
        raise SourceError("probability", f"float32 of shape {shape}, one row per image", got)
    if not (np.all(probability_NC >= 0.0) and np.allclose(probability_NC.sum(axis=1), 1.0, atol=1e-3)):
        raise SourceError("probability", "rows of numbers from 0 on that sum to 1", "others")
