"""Imports an existing decoder as a bundle, with a latent distribution for its codes.

A decoder alone is not enough for sampling: the distribution of its codes must be known as well. Either codes of real
images are given (from the decoder's own encoder), with or without labels, and a latent distribution is fitted to them
as after training; or the decoder was trained for a standard normal prior, as in generative adversarial networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from generator.errors import SpecError
from generator.models.autoencoders.factory import load_decoder
from generator.models.autoencoders.imported.document import read_decoder
from generator.models.autoencoders.imported.layers import LayersConfig
from generator.models.bundle import BundleContents, FittingFacts, SourceFacts, save_bundle
from generator.models.bundle.save import check_new_directory
from generator.models.latents.codes import Codes
from generator.models.latents.config import GaussianSettings, SamplerSettings
from generator.models.latents.fitting.code_map import fit_code_map
from generator.models.latents.fitting.fit import Fit, fit
from generator.models.latents.fitting.gaussian import standard_normal
from generator.sources import split
from generator.sources.npz import open_npz, read_array, read_labels
from generator.spec.canonical import digest_of
from generator.spec.seeding import noise

PRIOR_CODE_COUNT = 10_000  # draws stored as the codes of a standard normal prior
_HOLDOUT = 0.1
_CHECKED_IMAGES = 64  # images decoded to check the decoder


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
    config: LayersConfig
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
    bundle_codes = (
        draw_prior_codes(config.latent_dim, seed) if codes is None else _split_codes(codes, config.latent_dim, seed)
    )
    fitted = _fit_prior(bundle_codes) if codes is None else fit(bundle_codes, sampler, seed=seed)
    names = () if codes is None else codes.class_names
    contents = BundleContents(
        autoencoder=config,
        decoder=tensors,
        encoder=None,
        latents=fitted.distribution,
        classes=names,
        codes=bundle_codes,
        source=SourceFacts(
            name="standard normal prior" if codes is None else codes.name,
            fingerprint=_fingerprint(bundle_codes),
            images=len(bundle_codes.codes_ND),
            holdout=len(bundle_codes.holdout_HD),
        ),
        training=None,
        fitting=FittingFacts(settings=_PRIOR_SETTINGS if codes is None else sampler, seed=seed, chosen=fitted.chosen),
        code_map=fit_code_map(bundle_codes),
    )
    image_notices = _check_decoded(contents, config)
    return ImportResult(save_bundle(out, contents), config, fitted, (*fitted.notices, *image_notices))


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file. Raises ``SpecError``."""
    try:
        return dict(load_file(path))
    except OSError as missing:
        raise SpecError("weights", "a safetensors file that can be read", f"{path} ({missing})") from missing
    except (SafetensorError, KeyError, ValueError, TypeError) as broken:
        hint = "files of torch.save are not accepted, as they must be unpickled; use safetensors.torch.save_file"
        raise SpecError("weights", "a safetensors file", f"{path}, which does not parse ({broken})", hint) from broken


def read_codes(path: Path) -> ImportedCodes:
    """``codes`` of an .npz file, with ``labels`` and ``class_names`` if it has them. Raises ``SourceError``."""
    with open_npz(path) as archive:
        codes_ND = read_array(archive, "codes", path)
        labels_N, names = read_labels(archive, "", len(codes_ND), path)
    return ImportedCodes(path.name, codes_ND, labels_N, names)


def draw_prior_codes(dims: int, seed: int) -> Codes:
    """Draws from the standard normal, which a bundle stores in place of codes of real images."""
    count = PRIOR_CODE_COUNT + PRIOR_CODE_COUNT // 10
    draws_ND = noise(seed, np.arange(count), np.zeros(count, dtype=np.int64), dims).normal_BD
    return Codes(draws_ND[:PRIOR_CODE_COUNT], None, draws_ND[PRIOR_CODE_COUNT:], None)


_PRIOR_SETTINGS = GaussianSettings(covariance="diagonal")


def _fit_prior(codes: Codes) -> Fit:
    return Fit(standard_normal(codes), {"prior": "standard normal"}, ())


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


def _check_decoded(contents: BundleContents, config: LayersConfig) -> tuple[str, ...]:
    """Decode a few codes before anything is written; returns notices. Raises ``SpecError`` for NaN or infinity."""
    decoder = load_decoder(config, {name: torch.from_numpy(array) for name, array in contents.decoder.items()})
    with torch.inference_mode():
        x_BCHW = decoder(torch.from_numpy(contents.codes.codes_ND[:_CHECKED_IMAGES].astype(np.float32))).numpy()
    if not np.isfinite(x_BCHW).all():
        raise SpecError("weights", "a decoder that gives finite pixels", "NaN or infinity for the given codes")
    outside = float(np.mean((x_BCHW < -0.02) | (x_BCHW > 1.02)))
    notices = []
    if outside > 0.01:
        notices.append(f"{outside:.0%} of the pixels are outside of [0, 1] and will be clipped; check the field output")
    if float(x_BCHW.std(axis=(1, 2, 3)).max()) < 0.5 / 255:
        notices.append("every image has a single colour; check that weights and codes belong together")
    return tuple(notices)
