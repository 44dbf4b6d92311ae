"""Training the map of ``transport`` by flow matching, from fresh draws of the base to the codes.

The pairs of base points and codes are independent within a class, and new in every epoch. Times are logit-normal
(Esser et al., "Scaling rectified flow transformers", arXiv:2403.03206). Held-out codes decide which epoch's average is
kept, and ``code_usefulness`` whether the map is kept at all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generator.errors import TrainingDiverged
from generator.models.latents.codes import ClassCodes, Codes
from generator.models.latents.config import TransportSettings
from generator.models.latents.fitting.checks import FitWarning, check_codes, covariance_warnings
from generator.models.latents.fitting.code_usefulness import code_usefulness, separation
from generator.models.latents.fitting.gaussian_base import fit_base
from generator.models.latents.fitting.whitened_clusters import MIN_CODES, fit_clusters
from generator.models.latents.quantiles import MIN_HOLDOUT, empty_quantiles, sample_quantiles
from generator.models.latents.transport import MapConfig, Transport, TransportConfig
from generator.models.latents.transport_map import TransportMap, linear_velocity
from generator.models.weight_average import WeightAverage
from generator.spec.seeding import permutation

_MAX_GRADIENT_NORM = 1.0  # larger gradients are clipped
_WARMUP_STEPS, _FINAL_RATE = 200, 0.02  # of the learning rate; the last as a share of its peak
_MAX_LOSS = 0.999  # of a map that is kept, on held-out codes; 1 is that of no map
_QUANTILE_SAMPLES = 4000  # of each class, for the quantiles of a mixture's density
_HINT = "try a smaller learning_rate"


@dataclass(frozen=True)
class TransportFit:
    """The fitted distribution, the outcome of its training (plain JSON), and warnings."""

    transport: Transport
    chosen: dict[str, Any]
    warnings: tuple[FitWarning, ...]


def fit_transport(
    codes: Codes,
    settings: TransportSettings,
    *,
    seed: int = 0,
    device: str = "cpu",
    on_epoch: Callable[[int, int], None] = lambda *_: None,
) -> TransportFit:
    """``on_epoch`` is called with the epochs done and their number. Raises ``SourceError`` as ``check_codes`` does, and
    ``TrainingDiverged``."""
    classes = check_codes(codes)
    warnings = [warning for class_codes in classes for warning in covariance_warnings(class_codes)]
    if settings.clusters is not None and max(part.count for part in classes) >= 2 * MIN_CODES:
        mixture = _fit_mixture(codes, classes, settings.clusters, seed)
        counts = {part.name: count for part, count in zip(classes, mixture.clusters, strict=True)}
        return TransportFit(mixture, {"clusters": counts} | separation(mixture, codes), tuple(warnings))
    base, arrays = fit_base(codes, classes)
    config = TransportConfig(dims=codes.dims, classes=len(codes.class_names), base=base)
    plain = Transport(config, arrays)
    chosen: dict[str, Any] = {"covariance": base.covariance}
    if settings.map is None:
        return TransportFit(plain, chosen | separation(plain, codes), tuple(warnings))
    network = MapConfig(**settings.map.model_dump(), spacing="late")
    trainer = _Trainer(plain, codes, settings, network, seed, torch.device(device))
    weights, facts = trainer.train(on_epoch)
    mapped = Transport(config.model_copy(update={"map": network}), {**arrays, **weights})
    useful = {name: code_usefulness(each, codes, seed=seed) for name, each in (("base", plain), ("map", mapped))}
    chosen |= facts | {"code_usefulness": useful}
    if reason := _why_no_map(facts["holdout_loss"], useful["base"], useful["map"]):
        warnings.append(FitWarning("all images", f"the map is dropped: {reason}"))
        mapped = plain
    return TransportFit(mapped, chosen | separation(mapped, codes), tuple(warnings))


def _fit_mixture(codes: Codes, classes: list[ClassCodes], clusters: int, seed: int) -> Transport:
    """A base of at most ``clusters`` clusters a class, without a map."""
    base, arrays = fit_base(codes, classes, rotated=True)
    found = fit_clusters(classes, arrays, clusters, seed=seed)
    names = len(codes.class_names)
    config = TransportConfig(
        dims=codes.dims, classes=names, base=base, clusters=found.clusters, cluster_rank=found.rank
    )
    mixture = Transport(config, found.arrays | {"quantile": empty_quantiles(names)})
    return mixture.with_quantiles(sample_quantiles(mixture, samples=_QUANTILE_SAMPLES))


def _why_no_map(loss: float, base_usefulness: float | None, map_usefulness: float | None) -> str:
    """Why the Gaussian alone is as good on held-out codes as with the map; empty if it is not."""
    if loss > _MAX_LOSS:
        return f"on held-out codes its error is {loss:.3f} of that of no map"
    if base_usefulness is not None and map_usefulness is not None and map_usefulness < base_usefulness:
        shares = f"{map_usefulness:.3f} of the held-out codes, those of the Gaussian alone {base_usefulness:.3f}"
        return f"a classifier trained on its codes recognises {shares}"
    return ""


class _Trainer:
    """The state of one training, in the units of the base: codes minus the class's mean, over its scale."""

    def __init__(
        self,
        plain: Transport,
        codes: Codes,
        settings: TransportSettings,
        network: MapConfig,
        seed: int,
        device: torch.device,
    ) -> None:
        self._plain, self._settings, self._seed, self._device = plain, settings, seed, device
        self._mean_CD, self._scale_CD = plain.base.mean_CD, plain.base.scale()
        self._labels_N, self._labels_H = (
            _labels(codes.codes_ND, codes.labels_N),
            _labels(codes.holdout_HD, codes.holdout_labels_H),
        )
        self._target_ND = self._standardised(codes.codes_ND, self._labels_N)
        self._target_HD = self._standardised(codes.holdout_HD, self._labels_H)
        self._batch = min(settings.batch, len(codes.codes_ND))
        self._steps = len(codes.codes_ND) // self._batch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_derive_seed(seed, "weights"))
            self._map = TransportMap(network, self._mean_CD, self._scale_CD).to(device)
        self._optimizer = torch.optim.AdamW(
            self._map.parameters(), settings.learning_rate, (0.9, 0.99), weight_decay=settings.weight_decay
        )
        self._average = WeightAverage(self._map, settings.averaging)

    def train(self, on_epoch: Callable[[int, int], None]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(weights of the best epoch by stored name, what was chosen)."""
        best, best_epoch, best_weights = math.inf, 0, dict[str, np.ndarray]()
        for epoch in range(self._settings.epochs):
            self._train_epoch(epoch)
            with self._average.applied():
                loss = self._holdout_loss()
                if loss < best:
                    best, best_epoch, best_weights = loss, epoch + 1, self._weights()
            if not math.isfinite(loss):
                raise TrainingDiverged("map holdout loss", "a number", f"{loss} after epoch {epoch + 1}", _HINT)
            on_epoch(epoch + 1, self._settings.epochs)
        return best_weights, {"best_epoch": best_epoch, "holdout_loss": round(best, 5)}

    def _train_epoch(self, epoch: int) -> None:
        start_ND = self._base_points(epoch, self._labels_N)
        order_N = permutation(self._seed, stream=epoch, size=len(self._labels_N))
        random = torch.Generator().manual_seed(_derive_seed(self._seed, f"times {epoch}"))
        total = self._settings.epochs * self._steps
        for step in range(self._steps):
            rows_B, number = order_N[step * self._batch : (step + 1) * self._batch], epoch * self._steps + step
            time_B1 = torch.randn((self._batch, 1), generator=random).sigmoid().to(self._device)
            loss, _ = self._losses(self._target_ND[rows_B], start_ND[rows_B], self._labels_N[rows_B], time_B1)
            for group in self._optimizer.param_groups:
                group["lr"] = self._settings.learning_rate * _lr_schedule(number, total)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self._map.parameters(), _MAX_GRADIENT_NORM)
            self._optimizer.step()
            self._average.update(number, total)

    def _losses(
        self, target_BD: np.ndarray, start_BD: np.ndarray, labels_B: np.ndarray, time_B1: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean squared error of the velocity that is added to the linear one, and the same if nothing is added."""
        x1_BD, x0_BD = (torch.from_numpy(points).to(self._device) for points in (target_BD, start_BD))
        x_BD = (1.0 - time_B1) * x0_BD + time_B1 * x1_BD
        wanted_BD = x1_BD - x0_BD - linear_velocity(time_B1) * x_BD
        network = self._map.network
        modulation_BE = network.time_modulation(time_B1[:, 0])
        modulation_BE = modulation_BE + network.class_modulation(torch.from_numpy(labels_B).to(self._device))
        return (network(x_BD, modulation_BE) - wanted_BD).square().mean(), wanted_BD.square().mean()

    @torch.inference_mode()
    def _holdout_loss(self) -> float:
        """The error on held-out codes (training codes if there are too few), at fixed times and base points, as a share
        of the error of the linear velocity alone."""
        target_HD, labels_H = self._target_HD, self._labels_H
        if len(labels_H) < MIN_HOLDOUT:
            target_HD, labels_H = self._target_ND, self._labels_N
        start_HD, count = self._base_points(-1, labels_H), len(labels_H)
        times_H = (np.arange(count, dtype=np.float32) * np.float32(0.618034)) % 1.0  # spread evenly
        time_H1 = torch.from_numpy(times_H[:, None]).to(self._device)
        total, linear = 0.0, 0.0
        for begin in range(0, count, self._batch):
            rows = slice(begin, begin + self._batch)
            loss, linear_loss = self._losses(target_HD[rows], start_HD[rows], labels_H[rows], time_H1[rows])
            total += loss.item() * len(labels_H[rows])
            linear += linear_loss.item() * len(labels_H[rows])
        return total / linear

    def _base_points(self, epoch: int, labels_N: np.ndarray) -> np.ndarray:
        """Standardised draws of the base with these labels, float32, new in each epoch (from -1)."""
        random = torch.Generator().manual_seed(_derive_seed(self._seed, f"base {epoch}"))
        normal_ND = torch.randn((len(labels_N), self._plain.dims), generator=random)
        points_ND: np.ndarray = self._draw_base(normal_ND, labels_N).numpy()
        points_ND /= self._scale_CD.astype(np.float32)[labels_N]
        return points_ND

    def _draw_base(self, normal_ND: Tensor, labels_N: np.ndarray) -> Tensor:
        """L n of each row: as ``GaussianBase.draw`` without the mean, but in float32 and rounded."""
        first_FSS, *second = (torch.from_numpy(factor.astype(np.float32)) for factor in self._plain.base.factors)
        moved_ND, channels = torch.empty_like(normal_ND), first_FSS.shape[-1]
        for factor in range(len(first_FSS)):
            rows_R = np.flatnonzero(labels_N == factor) if len(first_FSS) > 1 else np.arange(len(labels_N))
            grid_RCP = normal_ND[rows_R].view(len(rows_R), channels, -1)
            grid_RCP = torch.einsum("cd,rdp->rcp", first_FSS[factor], grid_RCP)
            for position_FPP in second:
                grid_RCP = grid_RCP @ position_FPP[factor].T
            moved_ND[rows_R] = grid_RCP.reshape(len(rows_R), -1)
        return moved_ND

    def _standardised(self, z_ND: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
        standardised_ND: np.ndarray = (z_ND - self._mean_CD[labels_N]) / self._scale_CD[labels_N]
        return standardised_ND.astype(np.float32)

    def _weights(self) -> dict[str, np.ndarray]:
        state = self._map.state_dict()
        return {f"map.{name}": value.detach().cpu().numpy().copy() for name, value in state.items()}


def _lr_schedule(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: a linear rise, then half a cosine period."""
    rise = min(1.0, (step + 1) / min(_WARMUP_STEPS, 0.1 * steps + 1))
    return rise * (_FINAL_RATE + (1.0 - _FINAL_RATE) * 0.5 * (1.0 + math.cos(math.pi * step / steps)))


def _labels(codes_ND: np.ndarray, labels_N: np.ndarray | None) -> np.ndarray:
    return np.zeros(len(codes_ND), dtype=np.int64) if labels_N is None else labels_N


def _derive_seed(seed: int, purpose: str) -> int:
    digest = hashlib.sha256(f"latentmill transport 1\n{seed}\n{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
