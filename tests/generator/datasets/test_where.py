"""Filters on the columns of sample tables."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.datasets.sample_filter import MAX_DEPTH, column_kinds, parse_filter
from generator.errors import SpecError

TABLE = pa.table(
    {
        "class": ["cat", "dog", "it's", None],
        "label": pa.array([0, 1, 2, None], pa.int32()),
        "label_confidence": pa.array([0.5, 0.95, None, 1.0], pa.float32()),
        "good": [True, False, True, False],
        "likely_labels": [[0], [1], None, []],
    }
)
KINDS = column_kinds(TABLE.schema)


def rows(text: str) -> list[int]:
    numbered = TABLE.append_column("row", pa.array(range(len(TABLE))))
    return numbered.filter(parse_filter(text, KINDS)).column("row").to_pylist()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("label_confidence > 0.9", [1, 3]),
        ("label_confidence > 0.9 and class in ('cat', 'dog')", [1]),
        ("class == 'cat' or class = \"dog\"", [0, 1]),
        ("class in ('it\\'s')", [2]),
        ("class is null", [3]),
        ("label is not null and not class in ('cat')", [1, 2]),
        ("class not in ('cat', 'dog') and label is not null", [2]),
        ("not (label < 1 or label >= 2)", [1]),
        ("label != 1", [0, 2]),
        ("NOT label <= 1 OR good == TRUE", [0, 2]),
        ("label >= -1e0 AND label<2", [0, 1]),
    ],
)
def test_what_a_filter_selects(text: str, wanted: list[int]) -> None:
    assert rows(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "label",
        "label >",
        "label > 'x",
        "label > 1 and",
        "label > 1 label < 2",
        "(label > 1",
        "label > 1)",
        "1 < label",
        "label > label",
        "label in 1",
        "label in ()",
        "class is 'cat'",
        "colour == 'red'",
        "__import__('os')",
        "label > 1; drop",
        "label ** 2 > 1",
        "label > 0x10",
        "label > nan",
        "not " * (MAX_DEPTH + 1) + "label > 1",
        "(" * 5000 + "label > 1",
        "label > " + "1" * 5000,
    ],
)
def test_what_is_no_filter(text: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_filter(text, KINDS)
    assert refused.value.field == "where"


@given(st.text(alphabet="labeclsgood ()'\"<>=!,.0123456789andornotinisnull\\\n", max_size=60))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        found = parse_filter(text, KINDS)
    except SpecError:
        return
    assert isinstance(found, pa.compute.Expression)


@pytest.mark.parametrize(
    ("text", "expected", "got"),
    [
        ("class = 3", "text in quotes to compare class with, at character 9", "3"),
        (
            "label_confidence > 0.9 and class in ('cat', 3)",
            "text in quotes to compare class with, at character 45",
            "3",
        ),
        ("label = 'cat'", "a number to compare label with, at character 9", "'cat'"),
        ("good = 1", "true or false to compare good with, at character 8", "1"),
        ("label = true", "a number to compare label with, at character 9", "true"),
        ("likely_labels = 1", "nothing but null to compare likely_labels with, at character 17", "1"),
    ],
)
def test_a_value_of_another_kind_than_its_column(text: str, expected: str, got: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_filter(text, KINDS)
    assert (refused.value.field, refused.value.expected, refused.value.got) == ("where", expected, got)


def test_a_column_of_lists_may_be_null() -> None:
    assert rows("likely_labels is null") == [2]
