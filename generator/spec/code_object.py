"""A code as an object of its own, beside the recipe: a safetensors file with one tensor, ``code``, float64 (D).

A recipe names it by its digest, so that codes of many numbers do not stand in the recipe.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as safetensors_bytes

from generator.errors import SpecError
from generator.spec.recipe import MAX_COORDINATE


def code_object_bytes(code: Sequence[float] | np.ndarray) -> bytes:
    """The object of a code, a pure function of its numbers."""
    return safetensors_bytes({"code": np.array(code, dtype=np.float64)})


def parse_code_object(data: bytes, dims: int, *, field: str) -> np.ndarray:
    """float64 (``dims``). Raises ``SpecError`` naming ``field`` for anything else than such an object."""
    try:
        tensors: dict[str, np.ndarray] = parse_safetensors(data)
    except (SafetensorError, KeyError, ValueError, TypeError) as broken:
        raise SpecError(field, "a safetensors file", f"bytes that do not parse ({broken})") from broken
    found = {name: f"{array.dtype} of shape {array.shape}" for name, array in tensors.items()}
    if found != {"code": f"float64 of shape {(dims,)}"}:
        raise SpecError(field, f"one tensor, code, of {dims} numbers in float64", f"{found}"[:300])
    code_D = tensors["code"]
    if not np.isfinite(code_D).all() or np.abs(code_D).max() > MAX_COORDINATE:
        raise SpecError(field, f"numbers between {-MAX_COORDINATE:g} and {MAX_COORDINATE:g}", "others")
    return code_D
