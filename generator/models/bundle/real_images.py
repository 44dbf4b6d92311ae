"""Reads real images for a bundle that exists: at its size, and in the way that its own source was read."""

from __future__ import annotations

from typing import Any

from generator.errors import SourceError
from generator.models.bundle.format import BundleInfo
from generator.sources import Source, load_source
from generator.sources.base import FIRST_RULES

_COLUMNS = {"image": None, "label": None}


def load_training_source(location: str, info: BundleInfo, **options: Any) -> Source:
    """The source at ``location``, which should be the bundle's own.

    If its fingerprint is not the bundle's, it is also read as releases before recipe version 2 did: a bundle that they
    made still finds its source. ``options``: of ``load_source``. Raises ``SourceError``, ``StoreError``.
    """
    source = _load(location, info, options)
    if source.fingerprint == info.source.fingerprint:
        return source
    try:
        earlier = _load(location, info, {**options, "rules": FIRST_RULES})
    except SourceError:
        return source
    return earlier if earlier.fingerprint == info.source.fingerprint else source


def load_similar_source(location: str, info: BundleInfo, training: Source | None = None, **options: Any) -> Source:
    """Other real images for the bundle, such as a test set: read by the rules of ``training``.

    Columns that the bundle's source was told to have are looked for, and found by type where they are not there.
    Raises ``SourceError``, ``StoreError``.
    """
    rules = {"rules": training.facts.rules} if training is not None else {}
    try:
        return _load(location, info, {**options, **rules})
    except SourceError as error:
        reading = info.source.reading
        if error.field not in _COLUMNS or (reading.image is None and reading.label is None):
            raise
        return _load(location, info, {**options, **rules, "reading": reading.model_copy(update=_COLUMNS)})


def _load(location: str, info: BundleInfo, options: dict[str, Any]) -> Source:
    image = info.image
    chosen = {"size": image.size, "channels": image.channels, "reading": info.source.reading}
    return load_source(location, **{**chosen, **options})
