"""Resolves the name of a device."""

from __future__ import annotations

import torch

from generator.errors import SettingsError


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
