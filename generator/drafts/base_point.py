"""Carries a code back to the base point of a bundle's map. Imports torch, so it is imported only when needed."""

from __future__ import annotations

import numpy as np

from generator.errors import SpecError
from generator.models.bundle import load_bundle
from generator.models.latents.map_inversion import MAX_ERROR, to_base
from generator.store.base import Store


def base_point(code: tuple[float, ...], bundle: Store, label: int, *, field: str) -> tuple[float, ...]:
    """The point of class ``label`` that the bundle's map carries to ``code``.

    Raises ``SpecError`` naming ``field`` if there is none within ``MAX_ERROR``, ``BundleError``.
    """
    point_D, error = to_base(load_bundle(bundle).latents, np.array(code), label)
    if not error <= MAX_ERROR:
        hint = "Choose another image, or counts for its own class."
        got = f"one that it misses by {error:.3f}"
        raise SpecError(
            field, f"a code that the bundle's map reaches within {MAX_ERROR} standard deviations", got, hint
        )
    return tuple(point_D.tolist())
