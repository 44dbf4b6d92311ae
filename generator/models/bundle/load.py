"""Loads bundles from stores. Every digest, shape and number is checked before use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors

from generator.errors import BundleError, BundleMissing, ObjectMissing
from generator.models.autoencoders.config import code_shape
from generator.models.bundle.format import (
    CODES_FILE,
    COPY_INDEX_FILE,
    DECODER_FILE,
    ENCODER_FILE,
    INFO_FILE,
    JUDGE_FILE,
    LATENTS_FILE,
    MAP_FILE,
    RECONSTRUCTIONS_FILE,
    THUMBNAILS_FILE,
    BundleFile,
    BundleInfo,
)
from generator.models.bundle.reconstructions import Reconstructions, parse_reconstructions
from generator.models.bundle.thumbnails import Thumbnails, parse_thumbnails
from generator.models.latents import LatentDistribution
from generator.models.latents.code_map import CodeMap, load_code_map
from generator.models.latents.codes import Codes
from generator.models.screening.data import NO_SCREENING, ScreeningData
from generator.spec.canonical import MAX_JSON_BYTES, digest_of, read_json, validate
from generator.store.base import Store

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: the parts to sample, decode and screen. ``decoder``: float arrays by parameter name.

    ``code_map``: the fixed map of codes to the plane, if the bundle has one. ``read_codes``: reads the stored codes,
    which are not kept in memory; ``None`` if the bundle has none.
    """

    digest: str
    info: BundleInfo
    decoder: Tensors
    latents: LatentDistribution
    screening: ScreeningData = NO_SCREENING
    code_map: CodeMap | None = None
    read_codes: Callable[[], Codes] | None = None


def read_info(store: Store, expected: str | None = None) -> tuple[str, BundleInfo]:
    """Digest and content of ``bundle.json`` in ``store``; no other file is read.

    Raises ``BundleMissing`` if there is no ``bundle.json``, and ``BundleError`` if its digest is not ``expected``.
    """
    data = read_info_bytes(store, expected)
    return digest_of(data), parse_info(data)


def read_info_bytes(store: Store, expected: str | None = None) -> bytes:
    """The bytes of ``bundle.json``; their sha256 is the bundle's digest. Raises as ``read_info`` does."""
    stored = store.head(INFO_FILE)
    if stored is None:
        raise BundleMissing("bundle", "a bundle (a directory with bundle.json)", f"none at {store.url}")
    if stored.size > MAX_JSON_BYTES:
        raise BundleError(INFO_FILE, f"at most {MAX_JSON_BYTES} bytes of JSON", f"{stored.size} bytes")
    data = store.get(INFO_FILE, MAX_JSON_BYTES)
    if expected is not None and digest_of(data) != expected:
        raise BundleError("bundle", f"bundle.json with digest {expected}", digest_of(data), "the bundle was altered")
    return data


def parse_info(data: bytes) -> BundleInfo:
    """The content of ``bundle.json``. Raises ``BundleError``."""
    document = read_json(data, field=INFO_FILE, error=BundleError)
    return validate(BundleInfo, document, field=INFO_FILE, error=BundleError)


def load_bundle(store: Store, expected: str | None = None) -> Bundle:
    """The bundle in ``store``, with all files verified; ``expected`` pins its digest. Raises ``BundleError``."""
    from generator.models.latents.load import load_distribution  # imported late: read_info does not need it

    digest, info = read_info(store, expected)
    latents = load_distribution(info.latents, _read_tensors(store, info, LATENTS_FILE))
    if (latents.dims, latents.classes) != (info.latent_dim, len(info.classes)):
        raise BundleError(
            LATENTS_FILE,
            f"{info.latent_dim} dimensions and {len(info.classes)} classes, as in {INFO_FILE}",
            f"{latents.dims} and {latents.classes}",
        )
    for name in (ENCODER_FILE, CODES_FILE, THUMBNAILS_FILE, RECONSTRUCTIONS_FILE):
        if name in info.files:
            read_file(store, info, name)
    decoder, screening = _read_tensors(store, info, DECODER_FILE), _load_screening(store, info)
    read_codes = partial(load_codes, store, info) if CODES_FILE in info.files else None
    return Bundle(digest, info, decoder, latents, screening, _load_code_map(store, info), read_codes)


def _load_screening(store: Store, info: BundleInfo) -> ScreeningData:
    judge_weights = _read_tensors(store, info, JUDGE_FILE) if JUDGE_FILE in info.files else None
    copy_index = None
    if COPY_INDEX_FILE in info.files:
        from generator.models.screening.copy_index import load_copy_index

        tensors = _read_tensors(store, info, COPY_INDEX_FILE)
        copy_index = load_copy_index(tensors, size=info.image.size, channels=info.image.channels)
    return ScreeningData(info.judge, judge_weights, copy_index, info.passing)


def _load_code_map(store: Store, info: BundleInfo) -> CodeMap | None:
    return load_code_map(_read_tensors(store, info, MAP_FILE), info.latent_dim) if MAP_FILE in info.files else None


def load_encoder_weights(store: Store, info: BundleInfo) -> Tensors:
    """The encoder's parameters. Raises ``BundleError`` if the bundle has no encoder."""
    return _read_tensors(store, info, ENCODER_FILE)


def load_codes(store: Store, info: BundleInfo) -> Codes:
    """The codes of training images and of held-out images. Raises ``BundleError`` if they do not fit the bundle."""
    tensors = _read_tensors(store, info, CODES_FILE)
    labels = {"labels": "codes", "holdout_labels": "holdout"} if info.classes else {}
    if set(tensors) != {"codes", "holdout", *labels}:
        raise BundleError(CODES_FILE, f"the tensors {sorted({'codes', 'holdout', *labels})}", sorted(tensors))
    for name in ("codes", "holdout"):
        _check_array(name, tensors[name], np.float32, (len(tensors[name]), info.latent_dim))
    for name, codes_name in labels.items():
        _check_array(name, tensors[name], np.int64, (len(tensors[codes_name]),))
        if np.any((tensors[name] < 0) | (tensors[name] >= len(info.classes))):
            raise BundleError(f"{CODES_FILE}:{name}", f"labels 0 .. {len(info.classes) - 1}", "other labels")
    codes_ND, holdout_HD = (tensors[name].astype(np.float64) for name in ("codes", "holdout"))
    labels_N, holdout_labels_H = tensors.get("labels"), tensors.get("holdout_labels")
    return Codes(codes_ND, labels_N, holdout_HD, holdout_labels_H, info.classes, code_shape(info.autoencoder))


def load_thumbnails(store: Store, info: BundleInfo) -> Thumbnails | None:
    """The pictures of training images, ``None`` if the bundle keeps none. Raises ``BundleError``."""
    return parse_thumbnails(_read_tensors(store, info, THUMBNAILS_FILE)) if THUMBNAILS_FILE in info.files else None


def load_reconstructions(store: Store, info: BundleInfo) -> Reconstructions | None:
    """Held-out images beside their reconstructions, ``None`` if the bundle keeps none. Raises ``BundleError``."""
    if RECONSTRUCTIONS_FILE not in info.files:
        return None
    return parse_reconstructions(_read_tensors(store, info, RECONSTRUCTIONS_FILE), len(info.classes))


def _check_array(name: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        got = f"{array.dtype} of shape {array.shape}"
        raise BundleError(f"{CODES_FILE}:{name}", f"{np.dtype(dtype)} of shape {shape}", got)


def read_file(store: Store, info: BundleInfo, name: BundleFile) -> bytes:
    """One file of a bundle, with the size and digest stated in ``info``. Raises ``BundleError`` naming the file."""
    entry = info.files.get(name)
    if entry is None:
        raise BundleError(name, f"a bundle with {name}", "a bundle without it")
    stored = store.head(name)
    if stored is not None and stored.size != entry.size:  # never read more than the stated size
        raise BundleError(
            name, f"{entry.size} bytes, as in {INFO_FILE}", f"{stored.size} bytes", "the bundle was altered"
        )
    try:
        data = store.get(name, entry.size)
    except ObjectMissing as missing:
        raise BundleError(name, "the file that bundle.json names", f"none at {store.url}") from missing
    if digest_of(data) != entry.digest:
        raise BundleError(name, f"content with digest {entry.digest}", digest_of(data), "the bundle was altered")
    return data


def _read_tensors(store: Store, info: BundleInfo, name: BundleFile) -> Tensors:
    data = read_file(store, info, name)
    try:
        tensors: dict[str, np.ndarray] = parse_safetensors(data)
    except (SafetensorError, KeyError, ValueError) as broken:
        raise BundleError(name, "a safetensors file", f"bytes that do not parse ({broken})") from broken
    for key, array in tensors.items():
        if not np.isfinite(array).all():
            raise BundleError(f"{name}:{key}", "finite numbers", "NaN or infinity")
    return tensors
