"""Canonical JSON, digests, and the translation of pydantic's validation errors into ours.

Canonical JSON: UTF-8, keys sorted, no white space, no NaN or infinity, floats by their shortest repr. Digests are
always computed from the stored bytes, never from a value that a newer model has serialised again.
"""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from generator.errors import InputError
from generator.spec.patterns import words_of

M = TypeVar("M", bound=BaseModel)

MAX_JSON_BYTES = 64 * 1024 * 1024

# What follows "expected" for pydantic's kinds of errors; the names in braces are those of their contexts.
_WORDS = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping of fields",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "list_type": "a list",
    "missing": "a value (the field is required)",
    "model_attributes_type": "a mapping of fields",
    "model_type": "a mapping of fields",
    "string_too_long": "text of at most {max_length} characters",
    "string_too_short": "text of at least {min_length} character(s)",
    "string_type": "text",
    "too_long": "at most {max_length} item(s)",
    "too_short": "at least {min_length} item(s)",
    "tuple_type": "a list",
    "union_tag_not_found": "a mapping of fields with {discriminator}",
}
# Beginnings of the messages of the others, and how they are worded instead.
_MESSAGE_PREFIXES = {"Input should be ": "", "Value error, ": "", "Keys should be ": "keys that are "}


class FrozenModel(BaseModel):
    """Base class of all stored or submitted values: immutable; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> bytes:
        """This value as canonical JSON."""
        return canonical_json(self.model_dump(mode="json"))


class Later:
    """Marks a field of a ``GrowingModel`` or ``ImageConfig`` that was added after values without it had been stored."""


class GrowingModel(FrozenModel):
    """A stored value that gets fields later: those marked ``Annotated[..., Later()]`` are left out of the JSON while
    they have their defaults, so values that existed before keep their digests."""

    @model_serializer(mode="wrap")
    def _leave_out_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_later_defaults(self, handler(self))


def without_later_defaults(model: BaseModel, fields: dict[str, Any]) -> dict[str, Any]:
    """``fields``, the serialised ones of ``model``, without those marked ``Later`` that have their defaults."""
    later = _later_defaults(type(model))
    return {name: value for name, value in fields.items() if name not in later or getattr(model, name) != later[name]}


@cache
def _later_defaults(model: type[BaseModel]) -> dict[str, Any]:
    """The defaults of the fields that are marked ``Later``."""
    fields = model.model_fields.items()
    return {name: each.default for name, each in fields if any(isinstance(mark, Later) for mark in each.metadata)}


def canonical_json(value: Any) -> bytes:
    """``value`` (plain JSON types) as canonical JSON bytes. Raises ``ValueError`` on NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_hex(data: bytes) -> str:
    """The sha256 of ``data`` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(data: bytes) -> str:
    """The sha256 of ``data`` in the form used everywhere: ``sha256:<64 hex digits>``."""
    return f"sha256:{sha256_hex(data)}"


def read_json(data: bytes, *, field: str, error: type[InputError], limit: int = MAX_JSON_BYTES) -> Any:
    """Parse untrusted JSON bytes. Raises ``error`` naming ``field`` for a wrong size, encoding, syntax or depth.

    Input that parsers read differently is refused too: duplicate keys in an object, NaN and infinities (which are not
    JSON), and unpaired surrogates (which UTF-8 cannot encode).
    """
    if len(data) > limit:
        raise error(field, f"at most {limit} bytes of JSON", f"{len(data)} bytes")
    try:
        document = json.loads(
            data, object_pairs_hook=_reject_duplicate_keys, parse_constant=_parse_finite, parse_float=_parse_finite
        )
        if b"\\u" in data:
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as broken:
        raise error(field, "a JSON document", f"bytes that do not parse ({broken})") from broken
    return document


def validate(model: type[M], value: Any, *, field: str, error: type[InputError]) -> M:
    """``value`` as ``model``. Raises the first validation error as ``error``, with its dotted path below ``field``."""
    try:
        return model.model_validate(value)
    except ValidationError as invalid:
        known = tuple(model.model_fields)
        raise translate_error(invalid, field=field, error=error, known=known, given=value) from invalid


def translate_error(
    invalid: ValidationError, *, field: str, error: type[InputError], known: tuple[str, ...], given: Any = None
) -> InputError:
    """The first validation error as ``error``; the hint says how many more there are.

    ``given``: what was validated. With it, the path has the names of fields as ``given`` spells them, without the
    names that pydantic adds for the kinds of a union.
    """
    return translate_details(invalid.errors(include_url=False), field=field, error=error, known=known, given=given)


def translate_details(
    details: Sequence[Mapping[str, Any]], *, field: str, error: type[InputError], known: tuple[str, ...], given: Any
) -> InputError:
    """Like ``translate_error``, for the details that ``ValidationError.errors()`` returns."""
    first, *rest = details
    hint = f"{len(rest)} more field(s) are wrong too" if rest else ""
    return error(*_translate(first, field, known, given), hint)


def translate_errors(
    invalid: ValidationError, *, field: str, error: type[InputError], known: tuple[str, ...], given: Any = None
) -> list[InputError]:
    """Every validation error as ``error``; ``given`` as for ``translate_error``."""
    return [error(*_translate(each, field, known, given)) for each in invalid.errors(include_url=False)]


def _translate(detail: Mapping[str, Any], field: str, known: tuple[str, ...], given: Any) -> tuple[str, str, str]:
    """Field, expected and got of one validation error."""
    spelt = None if given is None else _spelt_path(detail["loc"], given, detail["type"])
    path = list(detail["loc"]) if spelt is None else spelt
    where = ".".join(str(part) for part in (field, *path) if part != "")
    expected, got = _expected_text(detail), short_repr(detail["input"])
    if detail["type"] == "extra_forbidden":
        inner = ".".join(str(part) for part in path[:-1])  # ``known`` holds the top-level fields only
        expected = "a known field" + (f" of {inner}" if inner else "")
        if known and not inner:
            expected = f"one of the known fields ({', '.join(known)})"
        got = f"unknown field {path[-1]!r}"
    elif detail["type"] == "missing":
        got = "nothing"
    elif detail["type"] == "union_tag_invalid":
        where = f"{where}.{detail['ctx']['discriminator'].strip(chr(39))}"
        expected, got = f"one of {detail['ctx']['expected_tags']}", repr(detail["ctx"]["tag"])
    return where, expected, got


def short_repr(value: Any) -> str:
    """``value`` for an error message: at most 120 characters, in bounded time for any value."""
    text = _SHORT_REPR.repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"duplicate key {short_repr(key)}")
            seen.add(key)
    return found


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{short_repr(text)} is not a finite number")
    return number


def _spelt_path(loc: Sequence[str | int], at: Any, kind: str) -> list[str | int] | None:
    """The parts of ``loc`` that lead through ``at``; ``None`` if an error of this ``kind`` cannot be there.

    pydantic adds a part for each kind of a union, which is the value of a field of ``at`` or stands in parentheses,
    and one for keys, in brackets.
    """
    if not loc:
        return [] if kind not in ("missing", "extra_forbidden") else None
    part, rest, at = loc[0], loc[1:], dict(at) if isinstance(at, BaseModel) else at
    if _holds(at, part) and (kind != "extra_forbidden" or rest):
        inner = _spelt_path(rest, at[part], kind)
        if inner is not None:
            return [part, *inner]
    is_tag = str(part).startswith(("(", "[")) or not isinstance(at, Mapping) or part in at.values()
    if not rest and isinstance(at, Mapping) and (kind in ("missing", "extra_forbidden") or not is_tag):
        return [part]
    return _spelt_path(rest, at, kind)


def _holds(value: Any, part: str | int) -> bool:
    if isinstance(value, Mapping):
        return part in value
    return isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)


def _expected_text(detail: Mapping[str, Any]) -> str:
    """What follows "expected": never the pattern of a string, nor the name of an internal class."""
    kind, message = str(detail["type"]), str(detail["msg"])
    if kind == "string_pattern_mismatch":
        return words_of(detail["ctx"]["pattern"]) or "text of another form"
    if kind in _WORDS:
        context = detail.get("ctx", {})
        return _WORDS[kind].format_map({name: _number_text(value) for name, value in context.items()})
    for beginning, instead in _MESSAGE_PREFIXES.items():
        if message.startswith(beginning):
            return instead + message.removeprefix(beginning)
    return message


def _number_text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value).strip("'")


class _ShortRepr(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxlong, self.maxother = 3, 100, 100, 100

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to format integers of more than 4,300 digits, and is slow for slightly shorter ones."""
        return super().repr_int(x, level) if x.bit_length() <= 1024 else f"an integer of {x.bit_length()} bits"


_SHORT_REPR = _ShortRepr()
