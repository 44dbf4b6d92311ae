"""Reads real images for a bundle that exists: at its size, and in the way that its own source was read."""

from __future__ import annotations

from typing import Any

from generator.errors import SourceError
from generator.models.bundle.format import BundleInfo
from generator.sources import Source, load_source
from generator.sources.base import FIRST_RULES
from generator.spec.reading import UNLABELLED, Reading

_COLUMNS = {"image": None, "label": None}
_LABELS = {"label": UNLABELLED, "classes": None}


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

    Columns that the bundle's source was told to have are looked for, and found by type where they are not there; the
    source need not have all classes. Raises ``SourceError``, ``StoreError``.
    """
    rules = {"rules": training.facts.rules} if training is not None else {}
    options = {**options, **rules, "allow_empty": True}
    try:
        return _load(location, info, options)
    except SourceError as error:
        reading = info.source.reading
        if error.field not in ("image", "label", "classes") or reading == Reading():
            raise
        found = _load(location, info, {**options, "reading": reading.model_copy(update={**_COLUMNS, "classes": None})})
        wanted = tuple(name for name in reading.classes or found.class_names if name in found.class_names)
        if not wanted or wanted == found.class_names:
            return found
        return _load(location, info, {**options, "reading": reading.model_copy(update={**_COLUMNS, "classes": wanted})})


def load_images(location: str, info: BundleInfo, **options: Any) -> Source:
    """Images for the bundle without their labels. Raises ``SourceError``, ``StoreError``."""
    reading = info.source.reading.model_copy(update=_LABELS)
    return _load(location, info, {**options, "reading": reading, "allow_empty": True})


def _load(location: str, info: BundleInfo, options: dict[str, Any]) -> Source:
    image = info.image
    chosen = {"size": image.size, "channels": image.channels, "reading": info.source.reading}
    return load_source(location, **{**chosen, **options})
