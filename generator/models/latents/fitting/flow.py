"""Training a flow by maximum likelihood with zuko, on codes standardised by the Gaussian of their class.

Couplings come in pairs: the second mask is the complement of the first, which is drawn from the seed. The held-out
codes decide when to stop and which epoch's weights are kept.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from zuko.distributions import DiagNormal
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.lazy import Flow as ZukoFlow
from zuko.lazy import UnconditionalDistribution
from zuko.transforms import MonotonicAffineTransform

from generator.errors import SourceError, TrainingDiverged
from generator.models.latents.base import LatentDistribution
from generator.models.latents.codes import Codes
from generator.models.latents.config import FlowSettings
from generator.models.latents.covariances import FullCovariances
from generator.models.latents.fitting.checks import FitWarning, check_codes, covariance_warnings, holdout_warnings
from generator.models.latents.fitting.gaussian import fit_gaussian, moments
from generator.models.latents.flow import MIN_SCALE, Flow, FlowConfig
from generator.models.latents.quantiles import MIN_HOLDOUT, density_quantiles, empty_quantiles
from generator.spec.seeding import permutation

_MAX_GRADIENT_NORM = 5.0  # larger gradients are clipped
_WARMUP = 0.05  # share of the steps in which the learning rate rises
_HINT = "try a smaller learning_rate"
_EVALUATION_BATCH = 4096  # rows at a time
_WHITENED_AT_ONCE = 16_384  # rows


@dataclass(frozen=True)
class FlowFit:
    """The fitted flow, the outcome of its training (plain JSON), and warnings."""

    flow: Flow
    chosen: dict[str, Any]
    warnings: tuple[FitWarning, ...]


@dataclass(frozen=True)
class _Dataset:
    """Standardised codes u_ND and labels as one-hot rows, float32."""

    u_ND: Tensor
    label_NC: Tensor

    def __len__(self) -> int:
        return len(self.u_ND)


def fit_flow(codes: Codes, settings: FlowSettings, *, seed: int = 0) -> FlowFit:
    """Raises ``SourceError`` as ``check_codes`` does and for codes of one dimension, and ``TrainingDiverged``."""
    classes = check_codes(codes)
    if codes.dims < 2:
        raise SourceError("codes", "at least 2 dimensions for a flow", codes.dims, "use a mixture")
    mean_CD, factor_CDD = moments(classes)
    config = FlowConfig(
        dims=codes.dims,
        classes=len(codes.class_names),
        transforms=settings.transforms,
        hidden=settings.hidden,
    )
    mask_ND = _masks(config, seed)
    covariances = FullCovariances(mean_CD, factor_CDD)
    training = _standardise(covariances, codes.codes_ND, codes.labels_N, config)
    evaluation = _standardise(covariances, codes.holdout_HD, codes.holdout_labels_H, config)
    if len(evaluation) < MIN_HOLDOUT:
        evaluation = training
    trainer = _Trainer(_network(config, mask_ND, seed), training, evaluation, settings, seed)
    weights, epochs, best_epoch = trainer.train()
    tensors = {
        "mean": mean_CD,
        "factor": factor_CDD,
        "mask": mask_ND,
        "quantile": empty_quantiles(config.classes),
        **weights,
    }
    flow = _make_flow(config, tensors)
    flow_log_prob, gaussian_log_prob = (
        _holdout_log_prob(distribution, codes) for distribution in (flow, fit_gaussian(codes)[0])
    )
    chosen = {"epochs": epochs, "best_epoch": best_epoch, "holdout_log_likelihood": flow_log_prob}
    return FlowFit(
        flow.with_quantiles(density_quantiles(flow, codes)), chosen, _warnings(codes, flow_log_prob, gaussian_log_prob)
    )


def _warnings(codes: Codes, flow_log_prob: float | None, gaussian_log_prob: float | None) -> tuple[FitWarning, ...]:
    warnings = [
        warning
        for class_codes in codes.by_class()
        for warning in (
            *covariance_warnings(class_codes),
            *holdout_warnings(class_codes, "training codes also decide when the flow stops; "),
        )
    ]
    if flow_log_prob is not None and gaussian_log_prob is not None and flow_log_prob <= gaussian_log_prob:
        message = (
            f"held-out log-density is {flow_log_prob} nats under the flow, {gaussian_log_prob} under a plain Gaussian"
        )
        warnings.append(FitWarning("all images", message))
    return tuple(warnings)


class _Trainer:
    """The state of one training."""

    def __init__(
        self, network: nn.Module, training: _Dataset, evaluation: _Dataset, settings: FlowSettings, seed: int
    ) -> None:
        self._network, self._training, self._evaluation = network, training, evaluation
        self._settings, self._seed = settings, seed
        self._batch = min(settings.batch, len(training))
        self._steps = len(training) // self._batch
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def train(self) -> tuple[dict[str, np.ndarray], int, int]:
        """(weights of the best epoch by stored name, number of epochs trained, best epoch)."""
        best, best_epoch, best_weights = math.inf, 0, dict[str, np.ndarray]()
        for epoch in range(1, self._settings.epochs + 1):
            self._train_epoch(epoch - 1)
            loss = self._holdout_loss()
            if not math.isfinite(loss):
                raise TrainingDiverged("flow holdout loss", "a number", f"{loss} after epoch {epoch}", _HINT)
            if loss < best:
                best, best_epoch, best_weights = loss, epoch, _copy_weights(self._network)
            if epoch - best_epoch >= self._settings.patience:
                break
        return best_weights, epoch, best_epoch

    def _train_epoch(self, epoch: int) -> None:
        order_N = torch.from_numpy(permutation(self._seed, stream=epoch, size=len(self._training)))
        for step in range(self._steps):
            rows_B = order_N[step * self._batch : (step + 1) * self._batch]
            progress = (epoch * self._steps + step) / (self._settings.epochs * self._steps)
            for group in self._optimizer.param_groups:
                group["lr"] = self._settings.learning_rate * _lr_schedule(progress)
            loss = _losses(self._network, self._training, rows_B).mean()
            if not math.isfinite(loss.item()):
                got = f"{loss.item()} in step {step + 1} of epoch {epoch + 1}"
                raise TrainingDiverged("flow loss", "a number", got, _HINT)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self._network.parameters(), _MAX_GRADIENT_NORM)
            self._optimizer.step()

    @torch.inference_mode()
    def _holdout_loss(self) -> float:
        rows = torch.split(torch.arange(len(self._evaluation)), _EVALUATION_BATCH)
        return float(torch.cat([_losses(self._network, self._evaluation, rows_B) for rows_B in rows]).mean())


def _losses(network: nn.Module, dataset: _Dataset, rows_B: Tensor) -> Tensor:
    """loss_B: the negative log-density of standardised codes."""
    loss_B: Tensor = -network(dataset.label_NC[rows_B]).log_prob(dataset.u_ND[rows_B])
    return loss_B


def _lr_schedule(progress: float) -> float:
    """The learning rate as a share of its peak: a linear rise, then half a cosine period."""
    return min(1.0, (progress + 1e-3) / _WARMUP) * 0.5 * (1.0 + math.cos(math.pi * progress))


def _masks(config: FlowConfig, seed: int) -> np.ndarray:
    mask_ND = np.zeros((config.transforms, config.dims), dtype=np.uint8)
    for n in range(config.transforms):
        if n % 2:
            mask_ND[n] = 1 - mask_ND[n - 1]
        else:
            mask_ND[n, permutation(_derive_seed(seed, "masks"), stream=n, size=config.dims)[: config.dims // 2]] = 1
    return mask_ND


def _network(config: FlowConfig, mask_ND: np.ndarray, seed: int) -> nn.Module:
    base = UnconditionalDistribution(DiagNormal, torch.zeros(config.dims), torch.ones(config.dims), buffer=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_derive_seed(seed, "weights"))
        transforms = [
            GeneralCouplingTransform(
                config.dims,
                config.label_count,
                torch.from_numpy(mask_D.astype(bool)),
                univariate=partial(MonotonicAffineTransform, slope=MIN_SCALE),
                hidden_features=(config.hidden, config.hidden),
            )
            for mask_D in mask_ND
        ]
    network: nn.Module = ZukoFlow(transforms, base)
    return network


def _standardise(
    covariances: FullCovariances, codes_ND: np.ndarray, labels_N: np.ndarray | None, config: FlowConfig
) -> _Dataset:
    if labels_N is None:
        labels_N = np.zeros(len(codes_ND), dtype=np.int64)
    u_ND = np.empty(codes_ND.shape, dtype=np.float32)
    for begin in range(0, len(codes_ND), _WHITENED_AT_ONCE):
        rows = slice(begin, begin + _WHITENED_AT_ONCE)
        with np.errstate(over="ignore"):  # infinity shows in the loss
            u_ND[rows] = covariances.whiten(labels_N[rows], codes_ND[rows])
    return _Dataset(
        torch.from_numpy(u_ND), functional.one_hot(torch.from_numpy(labels_N), config.label_count).to(torch.float32)
    )


def _copy_weights(network: nn.Module) -> dict[str, np.ndarray]:
    """Copies of all weights, named as in ``flow.weight_shapes``: only linear layers are numbered."""
    weights = dict[str, np.ndarray]()
    couplings = [module for module in network.modules() if isinstance(module, GeneralCouplingTransform)]
    for n, coupling in enumerate(couplings):
        for i, layer in enumerate(list(coupling.hyper)[::2]):
            weights |= {f"{n}.{i}.{name}": value.detach().numpy().copy() for name, value in layer.named_parameters()}
    return weights


def _make_flow(config: FlowConfig, tensors: Mapping[str, np.ndarray]) -> Flow:
    try:
        return Flow(config, tensors)
    except ValueError as error:
        raise TrainingDiverged("flow weights", "weights of a usable size", error, _HINT) from error


def _holdout_log_prob(distribution: LatentDistribution, codes: Codes) -> float | None:
    """Mean log-density of the held-out codes in nats, under the distribution as it is stored; ``None`` if too few."""
    if len(codes.holdout_HD) < MIN_HOLDOUT:
        return None
    labels_H = codes.holdout_labels_H
    if labels_H is None:
        labels_H = np.zeros(len(codes.holdout_HD), dtype=np.int64)
    return round(float(distribution.log_prob(codes.holdout_HD, labels_H).mean()), 4)


def _derive_seed(seed: int, purpose: str) -> int:
    digest = hashlib.sha256(f"latentmill flow 1\n{seed}\n{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
