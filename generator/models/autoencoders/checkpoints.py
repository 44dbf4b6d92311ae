"""Training checkpoints: one safetensors file with JSON in its header. Nothing is unpickled.

No state of a random number generator is stored: random numbers depend on the seed and the epoch alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from generator.errors import SettingsError
from generator.models.autoencoders.settings import EpochRecord
from generator.spec.canonical import FrozenModel, read_json, validate

_METADATA_KEY = "latentmill"
_GROUPS = ("current", "best", "optimizer", "average")
HINT = "delete the file to start again, or give another path"


class _Header(FrozenModel):
    version: int = Field(ge=1, le=1)
    identity: str
    history: tuple[EpochRecord, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after an epoch. ``identity``: digest of its config, settings and source."""

    identity: str
    history: tuple[EpochRecord, ...]
    current: dict[str, Tensor]  # the network after the last epoch
    best: dict[str, Tensor]  # the network after the epoch that was best on the holdout
    optimizer: dict[str, Tensor]
    average: dict[str, Tensor] = field(default_factory=dict)  # moving averages of the weights, where they are kept


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint at ``path`` atomically. Raises ``SettingsError``."""
    header = _Header(version=1, identity=checkpoint.identity, history=checkpoint.history)
    groups = {name: getattr(checkpoint, name) for name in _GROUPS}
    tensors = {
        f"{group}/{name}": value.contiguous().cpu()
        for group, group_tensors in groups.items()
        for name, value in group_tensors.items()
    }
    data = save(tensors, metadata={_METADATA_KEY: header.canonical().decode()})
    temporary = path.with_name(f"{path.name}.new")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as refused:
        raise SettingsError("checkpoint", "a path that can be written", f"{path} ({refused})") from refused


def read(path: Path, identity: str) -> Checkpoint:
    """The checkpoint at ``path``. Raises ``SettingsError`` if it is invalid, or not of the training ``identity``."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as broken:
        raise SettingsError("checkpoint", "a latentmill checkpoint", f"{path} ({broken})", HINT) from broken
    document = read_json(metadata.get(_METADATA_KEY, "").encode(), field="checkpoint", error=SettingsError)
    header = validate(_Header, document, field="checkpoint", error=SettingsError)
    if header.identity != identity:
        expected = "a checkpoint of the same model, settings and source"
        raise SettingsError("checkpoint", expected, f"one of another training ({path})", HINT)
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in _GROUPS}
    for name, value in tensors.items():
        group, _, rest = name.partition("/")
        groups.setdefault(group, {})[rest] = value
    return Checkpoint(identity, header.history, **{group: groups[group] for group in _GROUPS})
