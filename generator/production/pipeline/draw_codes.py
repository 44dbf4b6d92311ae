"""The codes that a recipe's draw names instead of giving their numbers, read before the first sample is drawn."""

from __future__ import annotations

import numpy as np

from generator.errors import BundleError, DatasetError, IntegrityError, ObjectMissing, SpecError
from generator.models.bundle import Bundle
from generator.production.commit import BuildLocation
from generator.production.provenance.manifest import code_key
from generator.spec.canonical import digest_of
from generator.spec.code_object import parse_code_object
from generator.spec.recipe import MAX_CODE_OBJECT_BYTES, RowCode, named_codes


def read_draw_codes(location: BuildLocation, bundle: Bundle) -> dict[str, np.ndarray]:
    """float64 (D) by field of the draw (``code``, ``start``, ``end``); without the codes that the recipe holds itself.

    Raises ``SpecError``, ``BundleError`` if the bundle has no codes, and ``DatasetError`` or ``IntegrityError`` if an
    object beside the recipe is missing or altered.
    """
    return {
        name: _training_code(bundle, code.row, f"draw.{name}.row")
        if isinstance(code, RowCode)
        else _stored_code(location, code.object, bundle.latents.dims)
        for name, code in named_codes(location.recipe.draw).items()
    }


def _training_code(bundle: Bundle, row: int, field: str) -> np.ndarray:
    if bundle.read_codes is None:
        raise BundleError(field, "a bundle that holds its training codes", "a bundle without them")
    codes_ND = bundle.read_codes().codes_ND
    if row >= len(codes_ND):
        raise SpecError(field, f"0 .. {len(codes_ND) - 1}, a row of the bundle's training codes", row)
    return np.array(codes_ND[row])


def _stored_code(location: BuildLocation, digest: str, dims: int) -> np.ndarray:
    key = code_key(digest)
    data = location.code_objects.get(digest)
    if data is None:
        try:
            data = location.store.get(key, MAX_CODE_OBJECT_BYTES)
        except ObjectMissing as missing:
            raise DatasetError(key, "the code that the recipe names", f"none at {location.url}") from missing
    if digest_of(data) != digest:
        raise IntegrityError(key, f"bytes with digest {digest}", digest_of(data))
    return parse_code_object(data, dims, field=key)
