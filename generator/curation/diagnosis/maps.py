"""Maps of latent spaces: scatter plots of codes, coloured by class, with centres and outlines of clusters."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from generator.curation.diagnosis.code_subset import choose_rows, labels_of
from generator.models.latents.base import LatentDistribution
from generator.models.latents.code_map import CodeMap
from generator.models.latents.codes import Codes
from generator.models.latents.transport_map import to_codes
from generator.spec.seeding import Noise

# Paul Tol's "muted" scheme, distinguishable with any colour vision; every class is also labelled with its name.
COLOURS = (
    "#332288", "#DDCC77", "#117733", "#CC6677", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499", "#7A7A7A",
)  # fmt: skip
BACKGROUND, FOREGROUND = "#FAFAF7", "#3A3A38"
BLUE, RED = "#0072B2", "#C8321E"
_MAX_POINTS, _MAX_NAMES = 1_500, 30
_ANGLES = np.linspace(0.0, 2.0 * np.pi, 73)


@dataclass(frozen=True, eq=False)
class LatentMap:
    """Codes projected to the plane.

    ``centres_M2``: cluster centres, of classes ``centre_labels_M``. ``outlines``: (class, line_P2, sigmas).
    ``projection``: how the codes were projected, in words.
    """

    points_P2: np.ndarray
    labels_P: np.ndarray
    class_names: tuple[str, ...]
    centres_M2: np.ndarray
    centre_labels_M: np.ndarray
    outlines: tuple[tuple[int, np.ndarray, int], ...]
    projection: str


def make_map(codes: Codes, fitted: LatentDistribution, seed: int = 0, *, code_map: CodeMap | None = None) -> LatentMap:
    """A map of held-out codes, filled up with training codes if few are held out.

    Two dimensions are drawn without projection; one dimension is spread at random along the other axis; more are
    projected by PCA and t-SNE (van der Maaten & Hinton, JMLR 2008) together with the cluster centres. Distances between
    groups mean little in t-SNE, and it takes long. With ``code_map`` they are drawn by that linear map instead, which
    takes no time.
    """
    labels_N, holdout_labels_H = labels_of(codes)
    rows = choose_rows(labels_N, max(1, _MAX_POINTS - len(holdout_labels_H)), seed)
    points_PD = np.concatenate([codes.holdout_HD, codes.codes_ND[rows]])[:_MAX_POINTS]
    labels_P = np.concatenate([holdout_labels_H, labels_N[rows]])[:_MAX_POINTS]
    centres_MD, centre_labels_M = cluster_centres(fitted)
    names, outlines = codes.class_names or ("",), ()
    if codes.dims == 2:
        return LatentMap(
            points_PD, labels_P, names, centres_MD, centre_labels_M, _outlines(fitted), "the two latent dimensions"
        )
    if codes.dims == 1:
        height_P = np.random.default_rng(seed).uniform(-1.0, 1.0, len(points_PD))
        flat_P2 = np.stack([points_PD[:, 0], height_P], axis=1)
        flat_M2 = np.stack([centres_MD[:, 0], np.zeros(len(centres_MD))], axis=1)
        return LatentMap(
            flat_P2,
            labels_P,
            names,
            flat_M2,
            centre_labels_M,
            outlines,
            "one dimension, spread vertically at random",
        )
    drawn_PD = np.concatenate([points_PD, centres_MD])
    if code_map is not None:
        projected_2, projection = code_map.coordinates(drawn_PD).astype(np.float64), "the fixed map of the bundle"
    else:
        projected_2, projection = _project(drawn_PD, seed)
    count = len(points_PD)
    return LatentMap(projected_2[:count], labels_P, names, projected_2[count:], centre_labels_M, outlines, projection)


def cluster_centres(fitted: LatentDistribution) -> tuple[np.ndarray, np.ndarray]:
    """(centres_MD, labels_M): the codes that zero noise gives, for every cluster of every class."""
    labels_M = np.repeat(np.arange(len(fitted.clusters)), fitted.clusters)
    cluster_M = np.concatenate([np.arange(count) for count in fitted.clusters])
    choice_M = fitted.choice_for_cluster(cluster_M, labels_M)
    centres_MD = fitted.sample(Noise(choice_M, np.zeros((len(labels_M), fitted.dims))), labels_M).z_BD
    return to_codes(fitted, centres_MD, labels_M), labels_M


def _outlines(fitted: LatentDistribution) -> tuple[tuple[int, np.ndarray, int], ...]:
    """Circles of one and two standard deviations of noise, as the sampler maps them: ellipses for Gaussians, curved
    shapes for polar samplers and flows."""
    circle_P2, found = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1), []
    for label, count in enumerate(fitted.clusters):
        labels_P = np.full(len(_ANGLES), label)
        for cluster in range(count):
            choice_P = fitted.choice_for_cluster(np.full(len(_ANGLES), cluster), labels_P)
            for sigmas in (1, 2):
                noise = Noise(choice_P, sigmas * circle_P2)
                found.append((label, fitted.sample(noise, labels_P).z_BD, sigmas))
    return tuple(found)


def _project(points_PD: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    if len(points_PD) < 50 or not np.ptp(points_PD, axis=0).any():
        return PCA(2, random_state=seed).fit_transform(points_PD), "first two principal components"
    dims = min(30, points_PD.shape[1])
    main_PD = PCA(dims, random_state=seed).fit_transform(points_PD)
    main_PD /= main_PD[:, 0].std()
    with threadpool_limits(2):
        flat_P2 = TSNE(2, init="pca", perplexity=min(30.0, len(main_PD) / 4), random_state=seed).fit_transform(main_PD)
    return flat_P2.astype(np.float64), f"t-SNE of {points_PD.shape[1]} dimensions"


def map_png(drawn: LatentMap, title: str) -> bytes:
    """One map as PNG bytes."""
    figure = Figure(figsize=(8.0, 7.4), dpi=100, facecolor=BACKGROUND, layout="constrained")
    _draw_map(figure.subplots(), drawn, title, FOREGROUND)
    return figure_png(figure)


def map_pair_png(blue: LatentMap, red: LatentMap, titles: tuple[str, str]) -> bytes:
    """Two maps side by side as PNG bytes: blue at the left, red at the right."""
    figure = Figure(figsize=(13.0, 6.6), dpi=100, facecolor=BACKGROUND, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_map(left, blue, titles[0], BLUE)
    _draw_map(right, red, titles[1], RED)
    return figure_png(figure)


def figure_png(figure: Figure) -> bytes:
    """A figure as PNG bytes. Omits date and version, so equal figures give equal bytes."""
    out = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(out, format="png", facecolor=BACKGROUND, metadata={"Software": None})
    return out.getvalue()


def _draw_map(axes: Axes, drawn: LatentMap, title: str, colour: str) -> None:
    axes.set_facecolor("white")
    for label in np.unique(drawn.labels_P).tolist():
        points_R2 = drawn.points_P2[drawn.labels_P == label]
        axes.scatter(
            points_R2[:, 0], points_R2[:, 1], s=9, color=_class_colour(label), alpha=0.55, linewidths=0, zorder=1
        )
    few = sum(sigmas == 1 for _, _, sigmas in drawn.outlines) <= 24
    for label, line_P2, sigmas in drawn.outlines:
        if few or sigmas == 1:
            axes.plot(
                *line_P2.T, color=_class_colour(label), linewidth=1.1 if sigmas == 1 else 0.6, alpha=0.8, zorder=2
            )
    for label in np.unique(drawn.centre_labels_M).tolist():
        centres_R2 = drawn.centres_M2[drawn.centre_labels_M == label]
        axes.scatter(
            centres_R2[:, 0],
            centres_R2[:, 1],
            s=34,
            marker="X",
            color=_class_colour(label),
            edgecolors="white",
            linewidths=0.8,
            zorder=3,
        )
    _name_classes(axes, drawn)
    _style_axes(axes, drawn, title, colour)


def _name_classes(axes: Axes, drawn: LatentMap) -> None:
    """Write each class name at the code nearest to the median of its class."""
    present = np.unique(drawn.labels_P).tolist()
    for label in present if len(present) <= _MAX_NAMES else []:
        points_R2 = drawn.points_P2[drawn.labels_P == label]
        middle_2 = points_R2[np.abs(points_R2 - np.median(points_R2, axis=0)).sum(axis=1).argmin()]
        axes.annotate(
            drawn.class_names[label].replace("$", r"\$")[:18],
            tuple(middle_2),
            ha="center",
            va="center",
            fontsize=14,
            fontweight="bold",
            color=_class_colour(label),
            path_effects=[withStroke(linewidth=3.5, foreground="white")],
            zorder=4,
        )


def _style_axes(axes: Axes, drawn: LatentMap, title: str, colour: str) -> None:
    axes.set_title(title.replace("$", r"\$"), color=colour, fontsize=13, fontweight="bold", loc="left")
    axes.set_xlabel(f"{drawn.projection};  x  centres of clusters", color=FOREGROUND, fontsize=10)
    low_2, high_2 = np.quantile(drawn.points_P2, [0.002, 0.998], axis=0)
    pad_2 = 0.12 * np.maximum(high_2 - low_2, 1e-9)
    axes.set_xlim(low_2[0] - pad_2[0], high_2[0] + pad_2[0])
    axes.set_ylim(low_2[1] - pad_2[1], high_2[1] + pad_2[1])
    axes.tick_params(colors=FOREGROUND, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(1.4 if colour != FOREGROUND else 0.8)


def _class_colour(label: int) -> str:
    return COLOURS[label % len(COLOURS)]
