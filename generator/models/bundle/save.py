"""Writes a bundle directory, atomically."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save as safetensors_bytes

from generator.errors import BundleError
from generator.models.autoencoders.config import AutoencoderConfig
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
    FileEntry,
    FittingFacts,
    ImageShape,
    SourceFacts,
    TrainingFacts,
)
from generator.models.bundle.reconstructions import Reconstructions
from generator.models.bundle.thumbnails import Thumbnails
from generator.models.latents import LatentDistribution
from generator.models.latents.code_map import CodeMap
from generator.models.latents.codes import Codes
from generator.models.screening.data import NO_SCREENING, ScreeningData
from generator.spec.canonical import digest_of


@dataclass(frozen=True)
class BundleContents:
    """The parts of a bundle. ``codes``: of training and held-out images, for ``refit`` and for measurements.

    ``encoder`` and ``training`` are ``None`` for an imported decoder. ``screening``: the label judge and copy index.
    ``code_map``: the fixed map to the plane; without it, tables of builds have no coordinates. ``thumbnails``: small
    pictures of the training images whose codes are kept, if asked for; ``reconstructions``: some held-out images beside
    their reconstructions, likewise.
    """

    autoencoder: AutoencoderConfig
    decoder: Mapping[str, np.ndarray]
    encoder: Mapping[str, np.ndarray] | None
    latents: LatentDistribution
    classes: tuple[str, ...]
    codes: Codes
    source: SourceFacts
    training: TrainingFacts | None
    fitting: FittingFacts
    screening: ScreeningData = NO_SCREENING
    code_map: CodeMap | None = None
    thumbnails: Thumbnails | None = None
    reconstructions: Reconstructions | None = None


def save_bundle(directory: Path, contents: BundleContents) -> str:
    """Write a bundle to ``directory``, which must not exist yet; returns its digest. Raises ``BundleError``."""
    check_new_directory(directory)
    latents_config, latents_tensors = contents.latents.state()
    files: dict[BundleFile, bytes] = {
        DECODER_FILE: _to_safetensors(contents.decoder),
        LATENTS_FILE: _to_safetensors(latents_tensors),
        CODES_FILE: _to_safetensors(_code_tensors(contents.codes)),
    }
    if contents.encoder is not None:
        files[ENCODER_FILE] = _to_safetensors(contents.encoder)
    screening = contents.screening
    if screening.judge_weights is not None:
        files[JUDGE_FILE] = _to_safetensors(screening.judge_weights)
    if screening.copy_index is not None:
        files[COPY_INDEX_FILE] = _to_safetensors(screening.copy_index.tensors())
    if contents.code_map is not None:
        files[MAP_FILE] = _to_safetensors(contents.code_map.tensors())
    if contents.thumbnails is not None:
        files[THUMBNAILS_FILE] = _to_safetensors(contents.thumbnails.tensors())
    if contents.reconstructions is not None:
        files[RECONSTRUCTIONS_FILE] = _to_safetensors(contents.reconstructions.tensors())
    config = contents.autoencoder
    width, height = config.image_size
    info = BundleInfo(
        image=ImageShape(height=height, width=width, channels=config.channels),
        latent_dim=config.latent_dim,
        classes=contents.classes,
        autoencoder=config,
        latents=latents_config,
        source=contents.source,
        training=contents.training,
        fitting=contents.fitting,
        judge=screening.judge,
        passing=screening.pass_rates,
        files={name: FileEntry(digest=digest_of(data), size=len(data)) for name, data in files.items()},
    )
    write_atomically(directory, {INFO_FILE: info.canonical(), **{str(name): data for name, data in files.items()}})
    return digest_of(info.canonical())


def _code_tensors(codes: Codes) -> dict[str, np.ndarray]:
    arrays = {"codes": codes.codes_ND.astype(np.float32), "holdout": codes.holdout_HD.astype(np.float32)}
    if codes.labels_N is not None and codes.holdout_labels_H is not None:
        arrays |= {"labels": codes.labels_N, "holdout_labels": codes.holdout_labels_H}
    return arrays


def _to_safetensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a safetensors file. Strided arrays (channels-last weights) are made contiguous first: ``save`` would
    write them in the wrong order."""
    return safetensors_bytes({name: np.asarray(array, order="C") for name, array in tensors.items()})


def check_new_directory(directory: Path) -> None:
    """Raise ``BundleError`` if ``directory`` already exists, or if it cannot be created and written."""
    try:
        if directory.exists() or directory.is_symlink():
            hint = "bundles are immutable"
            raise BundleError("out", "a path that does not exist yet", f"{directory}, which exists", hint)
        parent = next(path for path in directory.absolute().parents if path.exists())
        if not parent.is_dir():
            raise BundleError("out", "a path below a directory", f"{directory}, where {parent} is a file")
        _make_temporary(directory, parent).rmdir()
    except OSError as refused:
        raise BundleError("out", "a directory that can be written", f"{directory} ({refused.strerror})") from refused


def write_atomically(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write a directory of files under a hidden name, then rename it, so that it appears complete or not at all."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = _make_temporary(directory, directory.parent)
    except OSError as refused:
        raise BundleError("out", "a directory that can be written", f"{directory} ({refused.strerror})") from refused
    try:
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        temporary.chmod(0o755)
        temporary.rename(directory)
    except OSError as refused:
        shutil.rmtree(temporary, ignore_errors=True)
        raise BundleError("out", "a directory that can be written", f"{directory} ({refused.strerror})") from refused


def _make_temporary(directory: Path, parent: Path) -> Path:
    """A new, hidden directory in ``parent``, to become ``directory``."""
    return Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=parent))
