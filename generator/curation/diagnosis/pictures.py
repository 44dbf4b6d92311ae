"""Draw the diagnosis pictures of one bundle, or two maps side by side, into a directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generator.curation.diagnosis.code_subset import choose_codes
from generator.curation.diagnosis.contact_sheet import SheetRow, sheet_png
from generator.curation.diagnosis.convexity import Support, fit_support
from generator.curation.diagnosis.maps import LatentMap, cluster_centres, make_map, map_pair_png, map_png
from generator.curation.diagnosis.report import PictureName
from generator.curation.diagnosis.round_trip import DECODE_BATCH, decode_in_batches
from generator.curation.diagnosis.samplers import sample_like_holdout
from generator.errors import SourceError, SpecError
from generator.models.autoencoders.config import limit_batch
from generator.models.bundle import Bundle, load_codes
from generator.models.latents.codes import Codes
from generator.models.latents.fitting.code_map import fit_code_map
from generator.production.decoding import ResidentDecoder
from generator.sources import Source, split
from generator.store.base import Store

_ROWS, _CENTRES, _STEPS, _PAIRS = 10, 12, 9, 5
_MAX_UNLABELLED_ROWS = 8  # rows of centres of an unlabelled bundle


@dataclass(frozen=True, eq=False)
class PictureInputs:
    """A bundle, and its codes, decoder and map, from which pictures are drawn."""

    bundle: Bundle
    codes: Codes
    decoder: ResidentDecoder
    map: LatentMap

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names; one empty name if unlabelled."""
        return self.codes.class_names or ("",)

    @property
    def model_title(self) -> str:
        """Family, latent dimensions and training seed, for titles."""
        info = self.bundle.info
        seed = "" if info.training is None else f", seed {info.training.settings.seed}"
        return f"{info.autoencoder.family}, {info.latent_dim} dimensions{seed}"


def load_picture_inputs(store: Store, bundle: Bundle, seed: int = 0, *, quick: bool = False) -> PictureInputs:
    """Load what the pictures of a bundle need; ``seed`` is that of the map. Raises ``BundleError``.

    ``quick``: more than two dimensions are drawn by the bundle's fixed map, not by t-SNE, which may take a minute.
    """
    codes = load_codes(store, bundle.info)
    decoder = ResidentDecoder(
        bundle, batch=limit_batch(bundle.info.autoencoder, DECODE_BATCH), dtype="float32", device="cpu", mapped=False
    )
    code_map = (bundle.code_map or fit_code_map(codes)) if quick else None
    return PictureInputs(bundle, codes, decoder, make_map(codes, bundle.latents, seed, code_map=code_map))


def draw_pictures(
    inputs: PictureInputs, directory: Path, *, prefix: str = "", source: Source | None = None, seed: int = 0
) -> None:
    """Write the pictures of ``picture_files`` as PNG files. Raises ``SpecError``."""
    for name, data in picture_files(inputs, source=source, seed=seed).items():
        write_picture(directory, f"{prefix}{name}.png", data)


def picture_files(inputs: PictureInputs, *, source: Source | None = None, seed: int = 0) -> dict[PictureName, bytes]:
    """``map``, ``centroids``, ``walks`` and ``neighbours`` as PNG bytes.

    ``source``: the training images, for ``neighbours``; without it, decoded training codes are drawn.
    """
    return {
        "map": map_png(inputs.map, inputs.model_title),
        "centroids": sheet_png(_centroid_rows(inputs), "decoded cluster centres"),
        "walks": sheet_png(
            _walk_rows(inputs, seed), "decoded interpolations between codes; orange: off the codes' support"
        ),
        "neighbours": sheet_png(*_neighbour_rows(inputs, source, seed)),
    }


def draw_map_pair(blue: PictureInputs, red: PictureInputs, directory: Path) -> None:
    """Write ``blue-red.png``: the two maps side by side. Raises ``SpecError``."""
    titles = (f"blue: {blue.model_title}", f"red: {red.model_title}")
    write_picture(directory, "blue-red.png", map_pair_png(blue.map, red.map, titles))


def write_picture(directory: Path, name: str, data: bytes) -> None:
    """Write one picture; create the directory if needed. Raises ``SpecError``."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    except OSError as refused:
        raise SpecError("pictures", "a writable directory", f"{directory} ({refused.strerror})") from refused


def _centroid_rows(inputs: PictureInputs) -> list[SheetRow]:
    centre_MD, centre_labels_M = cluster_centres(inputs.bundle.latents)
    image_MHWC = decode_in_batches(inputs.decoder, centre_MD, centre_labels_M)
    if len(inputs.class_names) == 1:
        parts = [image_MHWC[begin : begin + _CENTRES] for begin in range(0, len(image_MHWC), _CENTRES)]
        return [SheetRow("", [[image] for image in part]) for part in parts[:_MAX_UNLABELLED_ROWS]]
    return [
        SheetRow(name, [[image_HWC] for image_HWC in image_MHWC[centre_labels_M == label][:_CENTRES]])
        for label, name in enumerate(inputs.class_names[:_ROWS])
    ]


def _walk_rows(inputs: PictureInputs, seed: int) -> list[SheetRow]:
    """Interpolations: half of the rows between two codes of one class, half between codes of two classes."""
    subset = choose_codes(inputs.codes, seed)
    support, rng = fit_support(subset), np.random.default_rng(seed)
    labels = np.unique(subset.shape_labels_S).tolist()
    rows = []
    for row in range(2 * _PAIRS if len(labels) > 1 else _PAIRS):
        first = labels[(row % _PAIRS) * len(labels) // _PAIRS % len(labels)]
        second = first if row < _PAIRS else labels[(labels.index(first) + 1 + len(labels) // 3) % len(labels)]
        begin_D, end_D = (
            _random_code(subset.shape_SD[subset.shape_labels_S == label], rng) for label in (first, second)
        )
        path_SD = begin_D + np.linspace(0.0, 1.0, _STEPS)[:, None] * (end_D - begin_D)
        name = (
            inputs.class_names[first]
            if first == second
            else f"{inputs.class_names[first]} to {inputs.class_names[second]}"
        )
        off = [] if not isinstance(support, Support) else _steps_off_support(support, path_SD)
        images = decode_in_batches(inputs.decoder, path_SD, np.full(len(path_SD), first))
        rows.append(SheetRow(name, [list(images)], frozenset((0, step) for step in off)))
    return rows


def _random_code(codes_SD: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    one_D: np.ndarray = codes_SD[int(rng.integers(len(codes_SD)))]
    return one_D


def _steps_off_support(support: Support, path_SD: np.ndarray) -> list[int]:
    """The steps of the path that are off the support of every class."""
    count = len(path_SD)
    ratio_CS = np.stack([support.distance_ratios(path_SD, np.full(count, label)) for label in support.codes])
    return np.flatnonzero(ratio_CS.min(axis=0) > support.limit).tolist()


def _neighbour_rows(inputs: PictureInputs, source: Source | None, seed: int) -> tuple[list[SheetRow], str]:
    """Pairs of a sample and the nearest training image or, without a source, the nearest training code decoded."""
    labels_B = np.repeat(np.arange(min(_ROWS, len(inputs.class_names))), _PAIRS + 1)
    z_BD, labels_B = (drawn_[: len(labels_B)] for drawn_ in sample_like_holdout(inputs.bundle.latents, labels_B, seed))
    image_BHWC = decode_in_batches(inputs.decoder, z_BD, labels_B)
    if source is None:
        near_BHWC = decode_in_batches(inputs.decoder, _nearest_codes(inputs.codes, z_BD, labels_B), labels_B)
        title = "pairs: a sample, and the nearest training code decoded"
    else:
        near_BHWC = _nearest_images(training_images(source, inputs.bundle), image_BHWC)
        title = "pairs: a sample, and the nearest training image"
    return [
        SheetRow(name, [[image_BHWC[row], near_BHWC[row]] for row in np.flatnonzero(labels_B == label)])
        for label, name in enumerate(inputs.class_names[:_ROWS])
    ], title


def training_images(source: Source, bundle: Bundle) -> np.ndarray:
    """The training images of ``bundle`` (uint8 NHWC). Raises ``SourceError`` for another source."""
    if source.fingerprint != bundle.info.source.fingerprint:
        hint = "name the source, size and channels that the bundle was trained on"
        raise SourceError("source", f"the bundle's ({bundle.info.source.fingerprint})", source.fingerprint, hint)
    settings = bundle.info.training_facts.settings
    parts = split(len(source), source.labels_N, holdout=settings.holdout, seed=settings.seed)
    images_NHWC: np.ndarray = source.images_NHWC[parts.train_N]
    return images_NHWC


def _nearest_codes(codes: Codes, z_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
    near_BD = np.empty_like(z_BD)
    for row, (z_D, label) in enumerate(zip(z_BD, labels_B, strict=True)):
        of_class_ND = codes.codes_ND if codes.labels_N is None else codes.codes_ND[codes.labels_N == label]
        near_BD[row] = of_class_ND[((of_class_ND - z_D) ** 2).sum(axis=1).argmin()] if len(of_class_ND) else z_D
    return near_BD


def _nearest_images(train_NHWC: np.ndarray, image_BHWC: np.ndarray, tile: int = 4096) -> np.ndarray:
    """The training image nearest to each image, by Euclidean distance of pixels."""
    query_BP = image_BHWC.reshape(len(image_BHWC), -1).astype(np.float32)
    best_B, row_B = np.full(len(query_BP), np.inf), np.zeros(len(query_BP), dtype=np.int64)
    for begin in range(0, len(train_NHWC), tile):
        part_TP = train_NHWC[begin : begin + tile].reshape(-1, query_BP.shape[1]).astype(np.float32)
        far_BT = (part_TP**2).sum(axis=1) - 2.0 * (query_BP @ part_TP.T)
        nearer = far_BT.min(axis=1) < best_B
        row_B = np.where(nearer, begin + far_BT.argmin(axis=1), row_B)
        best_B = np.minimum(best_B, far_BT.min(axis=1))
    nearest_BHWC: np.ndarray = train_NHWC[row_B]
    return nearest_BHWC
