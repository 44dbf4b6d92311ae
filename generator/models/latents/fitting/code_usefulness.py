"""How useful sampled codes are for those of real images that were held out, measured in the latent space in seconds.

A small network learns to classify codes from samples alone and is tested on held-out codes: the usefulness of a dataset
without the decoder. It compares two distributions of the same codes; it says nothing about the decoder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional

from generator.models.latents.base import LatentDistribution
from generator.models.latents.codes import Codes
from generator.models.latents.quantiles import MIN_HOLDOUT
from generator.models.latents.transport import Transport
from generator.models.latents.transport_map import to_codes
from generator.spec.seeding import noise

_SAMPLES, _STEPS, _BATCH, _WIDTH, _RATE = 20_000, 600, 256, 512, 2e-3
_SEPARATION_SAMPLES = 1000


def code_usefulness(distribution: LatentDistribution, codes: Codes, *, seed: int) -> float | None:
    """Share of held-out codes that a network trained on samples classifies correctly; ``None`` without labels, with one
    class, or with too few held-out codes."""
    if codes.holdout_labels_H is None or len(codes.class_names) < 2 or len(codes.holdout_HD) < MIN_HOLDOUT:
        return None
    labels_S = np.arange(_SAMPLES) % len(codes.class_names)
    samples_SD = _samples(distribution, labels_S, seed)
    centre_D, scale_D = codes.codes_ND.mean(axis=0), codes.codes_ND.std(axis=0) + 1e-12
    x_SD, x_HD = (
        torch.from_numpy(((z - centre_D) / scale_D).astype(np.float32)) for z in (samples_SD, codes.holdout_HD)
    )
    y_S, y_H = torch.from_numpy(labels_S), torch.from_numpy(codes.holdout_labels_H)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(codes.dims, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, len(codes.class_names)))
        optimizer = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=0.05)
        for step in range(_STEPS):
            rows_B = torch.randint(0, _SAMPLES, (_BATCH,))
            optimizer.param_groups[0]["lr"] = _RATE * (1.0 - step / _STEPS)
            loss = functional.cross_entropy(network(x_SD[rows_B]), y_S[rows_B])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.inference_mode():
        return round(float((network(x_HD).argmax(1) == y_H).double().mean()), 4)


def separation(transport: Transport, codes: Codes) -> dict[str, Any]:
    """``density_auroc``: the probability that a held-out code has a higher density under the base than a sample has,
    both as codes; 0.5 means that the density does not tell them apart. Empty with too few held-out codes."""
    if len(codes.holdout_HD) < MIN_HOLDOUT:
        return {}
    held_HD, labels_H = codes.holdout_HD[:_SEPARATION_SAMPLES], codes.holdout_labels_H
    labels_H = np.zeros(len(held_HD), dtype=np.int64) if labels_H is None else labels_H[:_SEPARATION_SAMPLES]
    samples_HD = _samples(transport, labels_H, 0)
    density = np.concatenate([transport.log_prob(z_HD, labels_H) for z_HD in (held_HD, samples_HD)])
    is_real = np.repeat([1, 0], len(held_HD))
    return {"density_auroc": round(float(roc_auc_score(is_real, density)), 4)}


def _samples(distribution: LatentDistribution, labels_S: np.ndarray, seed: int) -> np.ndarray:
    """Codes with these labels, float64."""
    rows_S = np.arange(len(labels_S))
    drawn = noise(seed, rows_S, np.zeros_like(rows_S), distribution.dims)
    return to_codes(distribution, distribution.sample(drawn, labels_S).z_BD, labels_S)
