"""Calibration of a judge: one temperature for all classes, fitted to held-out images.

A network that is trained for long is too sure of itself. Dividing its logits by a temperature changes no decision
between classes, and makes probabilities that are right as often as they say (Guo, Pleiss, Sun & Weinberger, "On
calibration of modern neural networks", ICML 2017). The temperature becomes part of the last layers.

Legend: N images, C classes, V views (members of the judge, and mirror images).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from generator.models.autoencoders.networks import to_input
from generator.models.batched_rows import batched_rows, images_at_once
from generator.models.features.classifier import LabelledImages
from generator.models.screening.label_judge import LabelJudge

MIN_IMAGES = 100  # held-out images; with fewer a judge is left as it is
_BATCH = 250
_LOWEST, _HIGHEST, _SEARCH_STEPS = math.log(0.25), math.log(8.0), 30  # of the logarithm of the temperature
_BINS = 15


def calibrate(judge: LabelJudge, holdout: LabelledImages) -> float:
    """Divide the logits of ``judge`` by the temperature that makes the labels of ``holdout`` likeliest; returns it.

    With fewer than ``MIN_IMAGES`` images nothing changes, and the temperature is 1.
    """
    if len(holdout) < MIN_IMAGES:
        return 1.0
    logits_VNC, labels_N = _logits(judge, holdout.images_NHWC), torch.from_numpy(holdout.labels_N)
    temperature = math.exp(_minimum(lambda log: _surprise(logits_VNC / math.exp(log), labels_N)))
    with torch.no_grad():
        for member in judge.members:
            head = member.head
            assert isinstance(head, nn.Linear)
            for value in (head.weight, head.bias):
                value.div_(temperature)
    return temperature


def calibration_error(probability_NC: np.ndarray, labels_N: np.ndarray) -> float:
    """Mean difference between the probability of the likeliest class and how often it is right, in 15 bins of equal
    width, weighted by their images (Naeini, Cooper & Hauskrecht, "Obtaining well calibrated probabilities", 2015)."""
    confidence_N, right_N = probability_NC.max(axis=1), probability_NC.argmax(axis=1) == labels_N
    bin_N = np.minimum((confidence_N * _BINS).astype(np.int64), _BINS - 1)
    total = 0.0
    for number in range(_BINS):
        inside_N = bin_N == number
        if inside_N.any():
            total += abs(float(confidence_N[inside_N].sum()) - float(right_N[inside_N].sum()))
    return total / len(labels_N)


@torch.inference_mode()
def _logits(judge: LabelJudge, images_NHWC: np.ndarray) -> Tensor:
    """float64 (V, N, C), on the CPU."""
    device = next(judge.parameters()).device

    def logits_of(rows: slice) -> np.ndarray:
        logits_VBC = torch.stack(judge.logits(to_input(images_NHWC[rows], device))).double().cpu()
        return logits_VBC.transpose(0, 1).numpy()

    batch = images_at_once(images_NHWC.shape[1:], _BATCH)
    logits_NVC = torch.from_numpy(batched_rows(logits_of, len(images_NHWC), batch))
    return logits_NVC.transpose(0, 1).contiguous()


def _surprise(logits_VNC: Tensor, labels_N: Tensor) -> float:
    """Mean negative log-probability of the labels, where probabilities are means over the views."""
    log_VN = logits_VNC.log_softmax(2)[:, torch.arange(len(labels_N)), labels_N]
    return -float((log_VN.logsumexp(0) - math.log(len(log_VN))).mean())


def _minimum(value: Callable[[float], float]) -> float:
    """Where a function with one minimum has it, by golden-section search (Kiefer, 1953)."""
    low, high, ratio = _LOWEST, _HIGHEST, (math.sqrt(5.0) - 1.0) / 2.0
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    left_value, right_value = value(left), value(right)
    for _ in range(_SEARCH_STEPS):
        if left_value < right_value:
            high, right, right_value = right, left, left_value
            left = high - ratio * (high - low)
            left_value = value(left)
        else:
            low, left, left_value = left, right, right_value
            right = low + ratio * (high - low)
            right_value = value(right)
    return 0.5 * (low + high)
