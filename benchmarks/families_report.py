"""Writes the page of ``families.py``: one table per dataset, mean and standard deviation over seeds, pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from PIL import Image

_COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "reconstruction_mse": ("reconstruction MSE", "{:.4f}".format),
    "accuracy": ("accuracy trained on synthetic", "{:.3f}".format),
    "frechet_distance": ("Fréchet", "{:.2f}".format),
    "kernel_distance": ("kernel", "{:.3f}".format),
    "precision": ("precision", "{:.2f}".format),
    "recall": ("recall", "{:.2f}".format),
    "density": ("density", "{:.2f}".format),
    "coverage": ("coverage", "{:.2f}".format),
    "copies": ("copies", "{:.2%}".format),
    "authenticity": ("authenticity", "{:.2f}".format),
    "protection": ("protection", "{:.2f}".format),
    "train_seconds": ("training, CPU s", "{:.0f}".format),
    "fit_seconds": ("fit, CPU s", "{:.1f}".format),
    "latents_per_second": ("latents/CPU s", "{:,.0f}".format),
}
_PER_CLASS = 10


def write(path: Path, rows: list[dict[str, Any]], protocol: dict[str, Any], pictures: Path) -> None:
    """Write the page at ``path``; it links to the pictures of ``draw_sheet`` in ``pictures``."""
    facts = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in protocol.items())
    lines = [
        "# Families and samplers under one protocol",
        "",
        "This page lets you choose an autoencoder family and a sampler by measured results.",
        f"`python benchmarks/families.py` made it ({facts}).",
        "Values are mean ± standard deviation over the seeds; a cell without ± has one seed.",
        "Fréchet and kernel distance, precision, recall, density and coverage use features of a classifier trained on",
        "the real images, against test images; lower distances and higher shares are better.",
        "Accuracy: a small network trained on the synthetic images alone, on the real test images. Copies,",
        "authenticity and protection against overfitting: by pixels, against all training images.",
        "[measures.md](measures.md) explains each measure. Times are processor seconds of one machine, in one run.",
    ]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        lines += ["", f"## {dataset}", "", *_table([row for row in rows if row["dataset"] == dataset])]
        drawn = sorted(pictures.glob(f"{dataset}-*.jpg"))
        lines += ["", *(f"![{one.stem}]({one.relative_to(path.parent)})" for one in drawn)]
    path.write_text("\n".join(lines) + "\n")


def _table(rows: list[dict[str, Any]]) -> list[str]:
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["family"], row["sampler"]), []).append(row)
    real = {row["seed"]: row["real_accuracy"] for row in rows}
    head = ["family", "sampler", "seeds", *(title for title, _ in _COLUMNS.values())]
    ranked = sorted(cells.items(), key=lambda cell: -mean(row["accuracy"] for row in cell[1]))
    return [
        f"Trained on the real images the same network reaches {_spread_text(list(real.values()), '{:.3f}'.format)}.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {family} | {sampler} | {len(group)} | {_values(group)} |" for (family, sampler), group in ranked),
    ]


def _values(rows: list[dict[str, Any]]) -> str:
    return " | ".join(
        _spread_text([row[name] for row in rows], format_value) for name, (_, format_value) in _COLUMNS.items()
    )


def _spread_text(values: list[float], format_value: Callable[[float], str]) -> str:
    return format_value(mean(values)) + (f" ± {format_value(stdev(values))}" if len(values) > 1 else "")


def draw_sheet(images_NHWC: np.ndarray, labels_N: np.ndarray, path: Path) -> None:
    """Draw a sheet of samples as a JPEG file, one row per class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [images_NHWC[labels_N == label][:_PER_CLASS] for label in np.unique(labels_N)]
    sheet_HWC = np.concatenate([np.concatenate(list(row_NHWC), axis=1) for row_NHWC in rows])
    image = Image.fromarray(sheet_HWC[:, :, 0] if sheet_HWC.shape[2] == 1 else sheet_HWC)
    image.save(path, quality=85)
