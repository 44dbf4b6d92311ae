"""The preview: a marked JPEG whose cells are the images, class by class."""

from __future__ import annotations

import numpy as np
import pytest

from generator.production.images import decode_image, is_marked_synthetic
from generator.production.provenance.preview import preview_bytes

RED, BLUE = (220, 30, 30), (30, 30, 220)


def flat(colour: tuple[int, ...], size: int = 16) -> np.ndarray:
    return np.full((size, size, len(colour)), colour, dtype=np.uint8)


def count_cells(sheet_HWC: np.ndarray, colour: tuple[int, ...], cell: int) -> float:
    """How many cells' worth of pixels have about this colour."""
    near = np.abs(sheet_HWC.astype(int) - colour).max(axis=2) < 12
    return float(near.sum()) / cell**2


def sheet(samples: list[tuple[np.ndarray, int | None]], classes: tuple[str, ...] = ()) -> np.ndarray:
    return decode_image(preview_bytes(samples, classes, 1), field="preview")


def test_is_a_marked_jpeg_and_repeats() -> None:
    data = preview_bytes([(flat(RED), 0)], ("red",), 1)
    assert data.startswith(b"\xff\xd8")
    assert is_marked_synthetic(data)
    assert data == preview_bytes([(flat(RED), 0)], ("red",), 1)


def test_labelled_shows_ten_images_a_row_under_the_classes_that_occur() -> None:
    samples = [(flat(RED), 0)] * 12 + [(flat(BLUE), 2)] * 3
    image = sheet(samples, ("red", "absent", "blue"))
    assert count_cells(image, RED, 48) == pytest.approx(10, abs=0.3)
    assert count_cells(image, BLUE, 48) == pytest.approx(3, abs=0.2)
    reds, blues = (np.flatnonzero((np.abs(image.astype(int) - c).max(axis=2) < 12).any(axis=1)) for c in (RED, BLUE))
    assert reds.max() < blues.min()


def test_at_most_ten_classes() -> None:
    samples = [(flat((10 * label, 0, 0)), label) for label in range(14)]
    names = tuple(f"c{label}" for label in range(14))
    assert sheet(samples, names).shape[0] == sheet(samples[:10], names).shape[0]


def test_unlabelled_is_a_grid_of_at_most_eight_by_eight() -> None:
    assert count_cells(sheet([(flat(RED), None)] * 100), RED, 48) == pytest.approx(64, abs=1)
    assert count_cells(sheet([(flat(RED), None)] * 5), RED, 48) == pytest.approx(5, abs=0.2)


def test_grey_images_are_shown_grey() -> None:
    image = sheet([(np.full((8, 8, 1), 90, dtype=np.uint8), None)])
    assert image.shape[2] == 3
    assert count_cells(image, (90, 90, 90), 48) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("size", "cell"), [(8, 48), (28, 56), (48, 48), (64, 64), (128, 128), (512, 171), (1000, 167)])
def test_cells_are_whole_multiples_or_parts_of_48_to_192_pixels(size: int, cell: int) -> None:
    assert count_cells(sheet([(flat(RED, size), None)]), RED, cell) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", ["x" * 200, "猫", "Käse", "a|b", " "])
def test_any_class_name_can_be_shown(name: str) -> None:
    image = sheet([(flat(RED), 0)], (name,))
    assert count_cells(image, RED, 48) == pytest.approx(1, abs=0.1)
    assert image.shape[1] < 400


def test_names_are_drawn() -> None:
    samples: list[tuple[np.ndarray, int | None]] = [(flat(RED), 0)]
    assert (sheet(samples, ("owl",))[:, :40] < 120).any()
    assert not np.array_equal(sheet(samples, ("owl",)), sheet(samples, ("low",)))
