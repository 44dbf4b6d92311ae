"""Resolves the name of a device, and the precision in which it trains."""

from __future__ import annotations

import torch

from generator.errors import SettingsError
from generator.models.autoencoders.settings import Precision


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` as a device of this machine. Raises ``SettingsError``."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as unknown:
        raise SettingsError("device", "auto, cpu, cuda or cuda:N", name) from unknown
    if device.type not in ("cpu", "cuda"):
        raise SettingsError("device", "auto, cpu, cuda or cuda:N", name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise SettingsError("device", f"a device of this machine ({count} CUDA devices)", name)
    return device


def training_precision(device: torch.device, precision: Precision) -> torch.autocast:
    """A context in which products of networks on ``device`` are computed in ``precision``, from float32 weights."""
    if precision == "auto":
        is_half = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        is_half = precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_half)
