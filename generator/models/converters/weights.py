"""Tensors of a foreign network by name: read from safetensors, and taken one by one with the shape that is expected."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from generator.errors import SpecError

_LISTED = 5  # names in a message
_PICKLES = "files of torch.save are not accepted, as they must be unpickled; use safetensors.torch.save_file"


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file; those of bfloat16 as float32. Raises ``SpecError``."""
    try:
        tensors = load_file(path)
    except OSError as missing:
        raise SpecError("weights", "a safetensors file that can be read", f"{path} ({missing})") from missing
    except (SafetensorError, KeyError, ValueError, TypeError) as broken:
        raise SpecError(
            "weights", "a safetensors file", f"{path}, which does not parse ({broken})", _PICKLES
        ) from broken
    return {name: _to_numpy(tensor) for name, tensor in tensors.items()}


@final
class Weights:
    """The tensors of a network below ``prefix``. Each is taken once; ``finish`` refuses any that is left."""

    def __init__(self, tensors: Mapping[str, np.ndarray], *, field: str = "weights", prefix: str = "") -> None:
        self._tensors = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        self._field, self._prefix, self._taken = field, prefix, set[str]()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    @property
    def names(self) -> tuple[str, ...]:
        """All names, without the prefix."""
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor. Raises ``SpecError`` if there is none."""
        return tuple(self._find(name).shape)

    def take(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """The tensor as float32, of ``shape`` if one is given. Raises ``SpecError``."""
        tensor, field = self._find(name), f"{self._field}:{self._prefix}{name}"
        if tensor.dtype.kind != "f" or (shape is not None and tuple(tensor.shape) != shape):
            expected = "floats" if shape is None else f"floats of shape {shape}"
            raise SpecError(field, expected, f"{tensor.dtype} of shape {tuple(tensor.shape)}")
        if not np.isfinite(tensor).all():
            raise SpecError(field, "finite numbers", "NaN or infinity")
        self._taken.add(name)
        return np.ascontiguousarray(tensor, dtype=np.float32)

    def ignore(self, *names: str) -> None:
        """Mark tensors as known, although they are not needed."""
        self._taken.update(names)

    def finish(self) -> None:
        """Raise ``SpecError`` if a tensor was not taken."""
        if left := [name for name in self._tensors if name not in self._taken]:
            names = ", ".join(f"{self._prefix}{name}" for name in left[:_LISTED])
            raise SpecError(
                self._field, "only tensors of this network", names + (", ..." if len(left) > _LISTED else "")
            )

    def _find(self, name: str) -> np.ndarray:
        if name not in self._tensors:
            known = ", ".join(f"{self._prefix}{known}" for known in list(self._tensors)[:_LISTED])
            got = f"only {known}{', ...' if len(self._tensors) > _LISTED else ''}" if known else "none"
            raise SpecError(self._field, f"a tensor {self._prefix}{name}", got)
        return self._tensors[name]


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array
