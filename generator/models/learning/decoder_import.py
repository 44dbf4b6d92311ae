"""Imports an existing decoder as a bundle, with a latent distribution for its codes.

A decoder alone is not enough for sampling: the distribution of its codes must be known as well. Either codes of real
images are given (from the decoder's own encoder), with or without labels, and a latent distribution is fitted to them
as after training; or the decoder was trained for a standard normal prior, as in generative adversarial networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from generator.errors import SpecError
from generator.models.autoencoders.config import code_shape, limit_batch, takes_labels
from generator.models.autoencoders.factory import load_decoder
from generator.models.autoencoders.graphs.config import GraphConfig
from generator.models.autoencoders.imported.document import read_decoder
from generator.models.autoencoders.imported.layers import LayersConfig
from generator.models.bundle import BundleContents, FittingFacts, SourceFacts, save_bundle
from generator.models.bundle.save import check_new_directory
from generator.models.latents.codes import Codes
from generator.models.latents.config import GaussianSettings, SamplerSettings
from generator.models.latents.fitting.code_map import fit_code_map
from generator.models.latents.fitting.fit import Fit, fit
from generator.models.latents.fitting.gaussian import standard_normal
from generator.models.learning.imported_network import ImportedNetwork
from generator.sources import split
from generator.sources.base import check_labels
from generator.sources.files.content import file_content
from generator.sources.kinds.npz import read_code_labels
from generator.sources.kinds.npz_archive import open_arrays
from generator.spec.canonical import digest_of
from generator.spec.seeding import noise

PRIOR_CODE_COUNT = 10_000  # draws stored as the codes of a standard normal prior
_HOLDOUT = 0.1
_CHECKED_IMAGES = 64  # images decoded to check the decoder
_CHECKED_FEATURES = 2**27  # numbers of all of them in memory
_MANY_AT_LIMITS = 0.3  # share of pixels at the limits of their range
_PRIOR_NUMBERS = 2**23  # of all draws stored for a prior


@dataclass(frozen=True, eq=False)
class ImportedCodes:
    """``codes_ND`` (any float type) of real images, ``labels_N`` int64 or ``None``, and the names of the classes."""

    name: str
    codes_ND: np.ndarray
    labels_N: np.ndarray | None = None
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportResult:
    """The digest of the new bundle, the fit, and notices for the user, such as images that look wrong."""

    digest: str
    config: LayersConfig | GraphConfig
    fit: Fit
    notices: tuple[str, ...]


def import_decoder(
    document: bytes,
    weights: Mapping[str, np.ndarray],
    codes: ImportedCodes | None,
    out: Path,
    *,
    sampler: SamplerSettings,
    seed: int = 0,
) -> ImportResult:
    """Write the bundle ``out``, which must not exist yet. Without ``codes`` the prior is a standard normal.

    ``document``: JSON of a ``DecoderDocument``. Raises ``SpecError`` naming the layer or tensor that does not fit,
    ``BundleError`` for ``out``, and what ``fit`` raises; ``out`` is then not created.
    """
    check_new_directory(out)
    config, tensors = read_decoder(document, weights)
    if codes is not None:
        return _write(config, tensors, None, codes, out, sampler=sampler, seed=seed)
    drawn = draw_prior_codes(config.latent_dim, seed)
    fitted = Fit(standard_normal(drawn), {"prior": "standard normal"}, ())
    return _save(config, tensors, None, drawn, _PRIOR_NAME, fitted, out, settings=_PRIOR_SETTINGS, seed=seed)


def import_network(
    network: ImportedNetwork,
    codes: ImportedCodes | None,
    out: Path,
    *,
    sampler: SamplerSettings,
    class_names: tuple[str, ...] = (),
    seed: int = 0,
) -> ImportResult:
    """As ``import_decoder``, for a graph. Without ``codes``, ``sampler`` must be a ``PriorSettings``.

    ``class_names``: of a decoder that draws classes; by default their numbers.
    """
    check_new_directory(out)
    config = network.config
    names = tuple(map(str, range(config.classes))) if config.classes and not class_names else class_names
    if len(names) != config.classes:
        raise SpecError("class_names", f"{config.classes} names, as the decoder has classes", len(names))
    if codes is not None:
        if config.classes and codes.class_names and len(codes.class_names) != config.classes:
            raise SpecError("codes", f"{config.classes} classes, as the decoder has", len(codes.class_names))
        return _write(config, network.decoder, network.encoder, codes, out, sampler=sampler, seed=seed)
    drawn = draw_prior_codes(config.latent_dim, seed, names, config.code_shape)
    fitted = fit(drawn, sampler, seed=seed)
    return _save(config, network.decoder, network.encoder, drawn, _PRIOR_NAME, fitted, out, settings=sampler, seed=seed)


def read_codes(path: Path) -> ImportedCodes:
    """``codes`` of an .npz file, with ``labels`` and ``class_names`` if it has them. Raises ``SourceError``."""
    arrays = open_arrays(file_content(path), path.name)
    codes_ND = arrays.read("codes")
    labels = read_code_labels(arrays, len(codes_ND), path.name)
    labels_N = labels.labels_N
    if labels_N is not None:
        labels_N = check_labels(labels_N, labels.names, count=len(codes_ND), field=f"{path.name}:labels")
    return ImportedCodes(path.name, codes_ND, labels_N, labels.names)


def draw_prior_codes(dims: int, seed: int, class_names: tuple[str, ...] = (), shape: tuple[int, ...] = ()) -> Codes:
    """Draws from the standard normal, which a bundle stores in place of codes of real images."""
    total = max(2 * max(1, len(class_names)), min(PRIOR_CODE_COUNT, _PRIOR_NUMBERS // dims))
    count = total + max(1, total // 10)
    draws_ND = noise(seed, np.arange(count), np.zeros(count, dtype=np.int64), dims).normal_BD
    labels_N = np.arange(count) % len(class_names) if class_names else None
    if labels_N is None:
        return Codes(draws_ND[:total], None, draws_ND[total:], None, (), shape)
    return Codes(draws_ND[:total], labels_N[:total], draws_ND[total:], labels_N[total:], class_names, shape)


_PRIOR_NAME, _PRIOR_SETTINGS = "standard normal prior", GaussianSettings(covariance="diagonal")


def _write(
    config: LayersConfig | GraphConfig,
    decoder: dict[str, np.ndarray],
    encoder: dict[str, np.ndarray] | None,
    codes: ImportedCodes,
    out: Path,
    *,
    sampler: SamplerSettings,
    seed: int,
) -> ImportResult:
    parts = _split_codes(codes, config.latent_dim, seed)
    parts = replace(parts, shape=code_shape(config))
    fitted = fit(parts, sampler, seed=seed)
    return _save(config, decoder, encoder, parts, codes.name, fitted, out, settings=sampler, seed=seed)


def _save(
    config: LayersConfig | GraphConfig,
    decoder: dict[str, np.ndarray],
    encoder: dict[str, np.ndarray] | None,
    codes: Codes,
    name: str,
    fitted: Fit,
    out: Path,
    *,
    settings: SamplerSettings,
    seed: int,
) -> ImportResult:
    contents = BundleContents(
        autoencoder=config,
        decoder=decoder,
        encoder=encoder,
        latents=fitted.distribution,
        classes=codes.class_names,
        codes=codes,
        source=SourceFacts(
            name=name,
            fingerprint=_fingerprint(codes),
            images=len(codes.codes_ND),
            holdout=len(codes.holdout_HD),
        ),
        training=None,
        fitting=FittingFacts(settings=settings, seed=seed, chosen=fitted.chosen),
        code_map=fit_code_map(codes),
    )
    image_notices = _check_decoded(contents, config)
    return ImportResult(save_bundle(out, contents), config, fitted, (*fitted.notices, *image_notices))


def _split_codes(codes: ImportedCodes, dims: int, seed: int) -> Codes:
    codes_ND = np.asarray(codes.codes_ND)
    if codes_ND.ndim != 2 or codes_ND.shape[1] != dims or codes_ND.dtype.kind != "f":
        expected = f"floats of shape (N, {dims}), as the decoder has {dims} inputs"
        raise SpecError("codes", expected, f"{codes_ND.dtype} of shape {codes_ND.shape}")
    if not np.isfinite(codes_ND).all():
        raise SpecError("codes", "finite numbers", "NaN or infinity")
    if len(codes_ND) < 2:
        raise SpecError("codes", "at least 2 of them", len(codes_ND))
    parts = split(len(codes_ND), codes.labels_N, holdout=_HOLDOUT, seed=seed)
    train, holdout = (codes_ND[rows].astype(np.float64) for rows in (parts.train_N, parts.holdout_N))
    if codes.labels_N is None:
        return Codes(train, None, holdout, None)
    return Codes(train, codes.labels_N[parts.train_N], holdout, codes.labels_N[parts.holdout_N], codes.class_names)


def _fingerprint(codes: Codes) -> str:
    parts = [codes.codes_ND.astype("<f4"), codes.holdout_HD.astype("<f4")]
    parts += (
        [] if codes.labels_N is None or codes.holdout_labels_H is None else [codes.labels_N, codes.holdout_labels_H]
    )
    return digest_of(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))


def _check_decoded(contents: BundleContents, config: LayersConfig | GraphConfig) -> tuple[str, ...]:
    """Decode a few codes before anything is written; returns notices. Raises ``SpecError`` for NaN or infinity."""
    decoder = load_decoder(config, {name: torch.from_numpy(array) for name, array in contents.decoder.items()})
    count = limit_batch(config, _CHECKED_IMAGES, _CHECKED_FEATURES)
    inputs = [torch.from_numpy(contents.codes.codes_ND[:count].astype(np.float32))]
    if takes_labels(config) and contents.codes.labels_N is not None:
        inputs.append(torch.from_numpy(contents.codes.labels_N[:count]))
    with torch.inference_mode():
        x_BCHW = decoder(*inputs).numpy()
    if not np.isfinite(x_BCHW).all():
        raise SpecError("weights", "a decoder that gives finite pixels", "NaN or infinity for the given codes")
    at_limits = float(np.mean((x_BCHW <= 0.0) | (x_BCHW >= 1.0))) if isinstance(config, GraphConfig) else 0.0
    outside = float(np.mean((x_BCHW < -0.02) | (x_BCHW > 1.02)))
    notices = []
    if outside > 0.01:
        notices.append(f"{outside:.0%} of the pixels are outside of [0, 1] and will be clipped; check the field output")
    if at_limits > _MANY_AT_LIMITS:
        hint = "a decoder of pixels in [-1, 1] needs --symmetric"
        notices.append(f"{at_limits:.0%} of the pixels are quite black or white; {hint}")
    if float(x_BCHW.std(axis=(1, 2, 3)).max()) < 0.5 / 255:
        notices.append("every image has a single colour; check that weights and codes belong together")
    return tuple(notices)
