"""The columns of all samples of a build, as arrays that are mapped into memory from files of a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from generator.datasets.exploration.frame import Frame, frame_from
from generator.errors import IntegrityError, LatentmillError

INFO_FILE = "columns.json"
FORMAT = 1
BINS = 25  # of a histogram
MAX_SAMPLES = 10_000_000
SHA_BYTES = 32

# The values of N samples. Without a label, confidence or place there is -1 or NaN.
TYPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "label": ("<i4", ()),
    "cluster": ("<i4", ()),
    "attempt": ("<i4", ()),
    "log_density": ("<f8", ()),
    "label_confidence": ("<f4", ()),
    "map_x": ("<f4", ()),
    "map_y": ("<f4", ()),
    "offset": ("<i8", ()),
    "size": ("<i8", ()),
    "image_sha256": ("|u1", (SHA_BYTES,)),
    "cell": ("<i4", ()),  # on the grid of the frame
    "density_bin": ("|u1", ()),  # bin of the histogram; BINS for no value
    "confidence_bin": ("|u1", ()),
    "by_density": ("<i4", ()),  # indices, the least dense first
    "by_confidence": ("<i4", ()),  # indices, the least confident first
}


@dataclass(frozen=True)
class Axis:
    """The axis of a histogram: its ends, which ``BINS`` equal bins lie between."""

    low: float
    high: float

    def bins(self, values_N: np.ndarray) -> np.ndarray:
        """uint8 (N,): the bin of each value, ``BINS`` where it is NaN."""
        scaled_N = (np.asarray(values_N, dtype=np.float64) - self.low) / (self.high - self.low) * BINS
        held_N = np.clip(np.floor(np.nan_to_num(scaled_N, nan=0.0)), 0, BINS - 1)
        return np.where(np.isnan(scaled_N), BINS, held_N).astype(np.uint8)

    def edge(self, place: int) -> float:
        """The left end of bin ``place``; of ``BINS``, the right end of the last one."""
        return self.high if place == BINS else self.low + (self.high - self.low) * place / BINS


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of one build. Arrays are read-only and mapped: what is not looked at takes no memory."""

    arrays: dict[str, np.ndarray]
    samples: int
    classes: tuple[str, ...]
    frame: Frame | None
    density: Axis | None
    confidence: Axis | None

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @property
    def clusters(self) -> int:
        """One more than the largest cluster number."""
        return int(self.arrays["cluster"].max(initial=-1)) + 1


def open_columns(folder: Path) -> Columns:
    """The columns in ``folder``. Raises ``IntegrityError`` if they are damaged, ``FileNotFoundError`` if there are
    none."""
    data = (folder / INFO_FILE).read_bytes()
    try:
        info = json.loads(data)
        if info["format"] != FORMAT:
            raise ValueError(f"format {info['format']}")
        samples = int(info["samples"])
        arrays = {name: _map(folder, name, samples) for name in TYPES}
        density, confidence = (None if info[name] is None else Axis(*info[name]) for name in ("density", "confidence"))
        return Columns(arrays, samples, tuple(info["classes"]), frame_from(info["frame"]), density, confidence)
    except (ValueError, KeyError, TypeError, OSError, LatentmillError) as broken:
        raise IntegrityError(str(folder / INFO_FILE), "columns of a build", f"{broken!r:.200}") from broken


def write_info(
    folder: Path,
    *,
    samples: int,
    classes: Iterable[str],
    frame: Frame | None,
    density: Axis | None,
    confidence: Axis | None,
) -> None:
    """Write ``columns.json``, which makes the columns in ``folder`` complete."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "samples": samples,
        "classes": list(classes),
        "frame": None if frame is None else frame.values(),
        "density": None if density is None else [density.low, density.high],
        "confidence": None if confidence is None else [confidence.low, confidence.high],
    }
    (folder / INFO_FILE).write_text(json.dumps(document), "utf-8")


def create_column(folder: Path, name: str, samples: int) -> np.ndarray:
    """The array ``name`` in a new file, to be written."""
    kind, shape = TYPES[name]
    return np.memmap(folder / f"{name}.bin", dtype=kind, mode="w+", shape=(samples, *shape))


def _map(folder: Path, name: str, samples: int) -> np.ndarray:
    kind, shape = TYPES[name]
    path, wanted = folder / f"{name}.bin", samples * int(np.dtype(kind).itemsize * np.prod(shape, dtype=np.int64))
    if path.stat().st_size != wanted:
        raise ValueError(f"{path.stat().st_size} bytes of {name}, not {wanted}")
    return np.memmap(path, dtype=kind, mode="r", shape=(samples, *shape))
