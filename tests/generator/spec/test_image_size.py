import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.errors import SourceError, SpecError
from generator.spec.image_size import MAX_SIDE, MIN_SIDE, ImageSize, check_sides, format_size, parse_size

_SIDES = st.integers(MIN_SIDE, MAX_SIDE)


def test_one_number_is_a_square_and_two_are_width_and_height() -> None:
    assert parse_size("64") == (64, 64)
    assert parse_size("96x64") == ImageSize(width=96, height=64)
    assert parse_size(" 33X47 ") == ImageSize(width=33, height=47)
    assert parse_size("64x64").is_square
    assert not parse_size("64x63").is_square


@given(_SIDES, _SIDES)
def test_what_is_written_is_read_back(width: int, height: int) -> None:
    assert parse_size(format_size((width, height))) == (width, height)
    assert str(ImageSize(width, height)) == format_size((width, height))


@pytest.mark.parametrize(
    "text", ["", "x", "64x", "x64", "axb", "64x64x3", "-64", "6.4", "64 x 64", "٦٤", "1e2", "9" * 5000]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^size: expected a size in pixels, such as 64, or 96x64"):
        parse_size(text)


@pytest.mark.parametrize("text", ["7", "513", "0x64", "64x7", "64x513", "0", "999999999x64"])
def test_sides_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match=rf"^size: expected 8 to 512 pixels a side, got {text}$"):
        parse_size(text)


def test_field_kind_of_error_and_largest_side_are_the_callers() -> None:
    assert parse_size("8x1024", largest=1024) == (8, 1024)
    with pytest.raises(SourceError, match=r"^photos:size: expected 8 to 128 pixels a side, got 129x8$"):
        parse_size("129x8", field="photos:size", error=SourceError, largest=128)
    with pytest.raises(SpecError, match=r"8 to 512 pixels a side, got 7x9"):
        check_sides(ImageSize(7, 9))
