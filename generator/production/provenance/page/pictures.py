"""Which samples a page shows, and the image files that are embedded for them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from generator.production.images import ImageEncoder, decode_image, extension, image_encoder
from generator.spec.recipe import JpegSettings, Recipe

MAX_SAMPLES = 240
MAX_IMAGE_BYTES = 1024 * 1024  # of all images together
_KEPT_BYTES = 16 * 1024  # an image file of at most so many bytes is embedded as it is
_SIDE = 128  # pixels, of the longer side of an image that is embedded smaller than it is
_TYPES = {"png": "image/png", "jpg": "image/jpeg"}


@dataclass(frozen=True)
class PageSample:
    """One sample on a page. ``image``: the URL ``data:`` of its image; ``facts``: its JSON in the shard."""

    key: str
    image: str
    facts: dict[str, Any]

    @property
    def label(self) -> int | None:
        label = self.facts.get("label")
        return label if isinstance(label, int) else None


def choose_samples(
    samples: Iterable[tuple[str, dict[str, bytes]]], recipe: Recipe, build_id: str | None
) -> list[PageSample]:
    """Of ``samples`` (key and files of each), about as many of each class, at most ``MAX_SAMPLES`` and as many as fit
    into ``MAX_IMAGE_BYTES``; by class and then in their order.

    Files of more than 16 KiB are embedded smaller, as JPEG; these carry the mark too, which names ``build_id``.
    """
    suffix, reduced = extension(recipe.image.format), None
    chosen, left = list[tuple[int, int, PageSample]](), MAX_IMAGE_BYTES
    for place, key, files, facts in _by_turns(samples):
        data, kind = files[suffix], _TYPES[suffix]
        if len(data) > _KEPT_BYTES:
            reduced = reduced or image_encoder(JpegSettings(quality=85), recipe.recipe_version, build_id)
            data, kind = _reduce(data, key, reduced), "image/jpeg"
        if len(data) > left or len(chosen) == MAX_SAMPLES:
            break
        left -= len(data)
        sample = PageSample(key, f"data:{kind};base64,{base64.b64encode(data).decode()}", facts)
        chosen.append((-1 if sample.label is None else sample.label, place, sample))
    return [sample for _, _, sample in sorted(chosen, key=lambda each: each[:2])]


def _by_turns(
    samples: Iterable[tuple[str, dict[str, bytes]]],
) -> list[tuple[int, str, dict[str, bytes], dict[str, Any]]]:
    """Place, key, files and facts of each sample: the first of every class, then the second of every class, ..."""
    seen, turns = dict[Any, int](), list[tuple[int, int, tuple[int, str, dict[str, bytes], dict[str, Any]]]]()
    for place, (key, files) in enumerate(samples):
        facts = dict(json.loads(files["json"]))
        label = facts.get("label")
        seen[label] = turn = seen.get(label, 0) + 1
        turns.append((turn, -1 if label is None else int(label), (place, key, files, facts)))
    return [sample for _, _, sample in sorted(turns, key=lambda each: (each[0], each[1], each[2][0]))]


def _reduce(data: bytes, key: str, encoder: ImageEncoder) -> bytes:
    image_HWC = decode_image(data, field=key)
    picture = Image.fromarray(image_HWC if image_HWC.shape[2] == 3 else image_HWC[:, :, 0])
    small = np.asarray(picture.reduce(max(1, -(-max(picture.size) // _SIDE))))
    return encoder(small if small.ndim == 3 else small[:, :, None])
