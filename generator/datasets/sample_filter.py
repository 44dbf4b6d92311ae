"""Filters on the columns of the sample tables: ``label_confidence > 0.9 and class in ('cat', 'dog')``.

A small grammar of comparisons, ``in``, ``is null``, ``and``, ``or``, ``not`` and parentheses that becomes an expression
of pyarrow. Nothing is evaluated as code; length and depth are bounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, final

from generator.errors import SpecError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

Kind = Literal["a number", "text in quotes", "true or false", "nothing but null"]  # what a column is compared with

MAX_LENGTH = 4096
MAX_DEPTH = 32
_MAX_INTEGER, _MAX_DIGITS = 2**63, 25
_FORM = "comparisons such as label_confidence > 0.9, class in ('cat', 'dog') or log_density is null, with and, or, not"
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<sign><=|>=|!=|==|=|<|>|\(|\)|,))"
)
_COMPARISONS = ("<", "<=", ">", ">=", "==", "=", "!=")
_WORDS = {"and", "or", "not", "in", "is", "null", "true", "false"}


class _Token(NamedTuple):
    kind: str  # number, text, name, sign, word, end
    text: str
    at: int


def column_kinds(schema: pa.Schema) -> dict[str, Kind]:
    """The columns of a table, and what each can be compared with; lists can only be null."""
    import pyarrow.types as kinds

    def kind(held: pa.DataType) -> Kind:
        if kinds.is_integer(held) or kinds.is_floating(held):
            return "a number"
        if kinds.is_string(held) or kinds.is_large_string(held):
            return "text in quotes"
        return "true or false" if kinds.is_boolean(held) else "nothing but null"

    return {field.name: kind(field.type) for field in schema}


def parse_filter(text: str, columns: Mapping[str, Kind]) -> pc.Expression:
    """``text`` as an expression over ``columns``. Raises ``SpecError`` naming ``where``, also for a value of another
    kind than its column."""
    if len(text) > MAX_LENGTH:
        raise SpecError("where", f"a filter of at most {MAX_LENGTH} characters", f"{len(text)} characters")
    return _Parser(_tokens(text), columns).parse()


def _tokens(text: str) -> list[_Token]:
    tokens, place = list[_Token](), 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise SpecError("where", _FORM, repr(text[place : place + 40].strip()))
        kind, found = match.lastgroup, match[match.lastgroup]
        word = kind == "name" and found.lower() in _WORDS
        tokens.append(_Token("word" if word else kind, found.lower() if word else found, match.start(kind)))
        place = match.end()
    return [*tokens, _Token("end", "the end", len(text))]


@final
class _Parser:
    def __init__(self, tokens: list[_Token], columns: Mapping[str, Kind]) -> None:
        self._tokens, self._columns, self._at, self._depth = tokens, columns, 0, 0

    def parse(self) -> pc.Expression:
        found = self._any()
        if self._next.kind != "end":
            raise self._refuse("and, or, or the end")
        return found

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, *texts: str) -> bool:
        if self._next.kind in ("word", "sign") and self._next.text in texts:
            self._at += 1
            return True
        return False

    def _refuse(self, expected: str) -> SpecError:
        return SpecError("where", f"{expected} at character {self._next.at + 1}; {_FORM}", self._next.text[:60])

    def _any(self) -> pc.Expression:
        found = self._all()
        while self._take("or"):
            found = found | self._all()
        return found

    def _all(self) -> pc.Expression:
        found = self._one()
        while self._take("and"):
            found = found & self._one()
        return found

    def _one(self) -> pc.Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise SpecError("where", f"a filter of at most {MAX_DEPTH} levels", "more")
        if self._take("not"):
            found = ~self._one()
        elif self._take("("):
            found = self._any()
            if not self._take(")"):
                raise self._refuse(")")
        else:
            found = self._comparison()
        self._depth -= 1
        return found

    def _comparison(self) -> pc.Expression:
        name, column = self._column()
        if self._take("is"):
            wanted = not self._take("not")
            if not self._take("null"):
                raise self._refuse("null")
            return column.is_null() if wanted else ~column.is_null()
        if self._take("not"):
            if not self._take("in"):
                raise self._refuse("in")
            return ~column.isin(self._list(name))
        if self._take("in"):
            return column.isin(self._list(name))
        sign = self._next.text
        if not self._take(*_COMPARISONS):
            raise self._refuse("a comparison")
        value = self._value(name)
        comparisons: dict[str, Any] = {
            "<": column.__lt__,
            "<=": column.__le__,
            ">": column.__gt__,
            ">=": column.__ge__,
            "!=": column.__ne__,
        }
        found: pc.Expression = comparisons.get(sign, column.__eq__)(value)
        return found

    def _column(self) -> tuple[str, Any]:
        import pyarrow.compute as pc

        token = self._next
        if token.kind != "name":
            raise self._refuse("the name of a column")
        if token.text not in self._columns:
            raise SpecError("where", f"one of the columns {', '.join(self._columns)}", token.text[:100])
        self._at += 1
        return token.text, pc.field(token.text)

    def _list(self, column: str) -> list[Any]:
        if not self._take("("):
            raise self._refuse("(")
        values = [self._value(column)]
        while self._take(","):
            values.append(self._value(column))
        if not self._take(")"):
            raise self._refuse(")")
        return values

    def _value(self, column: str) -> Any:
        token, kind = self._next, _kind(self._next)
        if kind is None:
            raise self._refuse("a number or text in quotes")
        if kind != (wanted := self._columns[column]):
            raise SpecError("where", f"{wanted} to compare {column} with, at character {token.at + 1}", token.text[:60])
        self._at += 1
        if kind == "a number":
            return _number(token.text)
        return re.sub(r"\\(.)", r"\1", token.text[1:-1]) if kind == "text in quotes" else token.text == "true"


def _kind(token: _Token) -> Kind | None:
    if token.kind == "word":
        return "true or false" if token.text in ("true", "false") else None
    kinds: dict[str, Kind] = {"number": "a number", "text": "text in quotes"}
    return kinds.get(token.kind)


def _number(text: str) -> float | int:
    """Raises ``SpecError`` for a number that no column can hold."""
    is_float = re.search(r"[.eE]", text) is not None
    number: float | int = float(text) if is_float else int(text) if len(text) <= _MAX_DIGITS else _MAX_INTEGER
    if not (math.isfinite(number) if is_float else -_MAX_INTEGER < number < _MAX_INTEGER):
        raise SpecError("where", "finite numbers, and integers of at most 64 bits", text[:60])
    return number
