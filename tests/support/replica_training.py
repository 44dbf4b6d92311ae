"""One of several processes that train an autoencoder together; writes its weights and losses.

Words: family (spatial or vae), directory for the results, and the number of epochs after which all of them end.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from generator.models.autoencoders.augmentation import Augmentation
from generator.models.autoencoders.config import SpatialConfig, VaeConfig
from generator.models.autoencoders.replicas import ALONE, Replicas, launched_replicas
from generator.models.autoencoders.settings import EpochRecord, TrainSettings
from generator.models.autoencoders.training import Examples, TrainedAutoencoder, train_autoencoder

CONFIGS = {
    # Neither noise nor statistics of a batch: what remains is the same in one process and in several.
    "spatial": SpatialConfig(size=32, channels=1, width=8, code_channels=4, code_noise=0.0, equivariance=0.0),
    "vae": VaeConfig(size=32, channels=1, latent_dim=4, width=4),
}
_SETTINGS = TrainSettings(epochs=3, batch=32, seed=3, device="cpu", patience=10)
_OF_FAMILY: dict[str, dict[str, Any]] = {
    "spatial": {"epochs": 1, "reconstruction": "mse"},
    "vae": {"augmentation": Augmentation(shift=1), "batch": 31},
}


def noise(count: int, seed: int) -> np.ndarray:
    """Images of noise: no weight is without a gradient, of which Adam would make a step of rounding errors."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 1), dtype=np.uint8)


def train(family: str, home: Path, replicas: Replicas = ALONE, last: int = 3) -> TrainedAutoencoder:
    """Train on 109 images; ends after epoch ``last``."""

    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == last < _SETTINGS.epochs:
            raise SystemExit(0)

    settings = _SETTINGS.model_copy(update=_OF_FAMILY[family])
    return train_autoencoder(
        CONFIGS[family],
        settings,
        Examples(noise(109, 0)),
        Examples(noise(700, 1)),
        checkpoint=home / "checkpoint",
        replicas=replicas,
        on_epoch=on_epoch,
    )


if __name__ == "__main__":
    family, home, last = sys.argv[1:]
    torch.set_num_threads(1)
    with launched_replicas("cpu") as replicas:
        trained = train(family, Path(home), replicas, int(last))
    states = {"encoder": trained.encoder_state, "decoder": trained.decoder_state}
    weights = {f"{part}.{name}": value for part, state in states.items() for name, value in state.items()}
    history = json.dumps([record.model_dump() for record in trained.history])
    save_file(weights, Path(home) / f"{replicas.rank}.safetensors", metadata={"history": history})
