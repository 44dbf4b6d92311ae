"""Canonical JSON, digests, and the translation of pydantic's validation errors into ours.

Canonical JSON: UTF-8, keys sorted, no white space, no NaN or infinity, floats by their shortest repr. Digests are
always computed from the stored bytes, never from a value that a newer model has serialised again.
"""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from generator.errors import InputError

M = TypeVar("M", bound=BaseModel)

MAX_JSON_BYTES = 64 * 1024 * 1024

# Beginnings of pydantic's messages, and how they are worded after "expected".
_MESSAGE_PREFIXES = {
    "Input should be a valid tuple": "a list",
    "Input should be ": "",
    "Value error, ": "",
    "Keys should be ": "keys that are ",
    "String should have ": "a string with ",
    "String should match ": "a string that matches ",
    "List should have ": "a list with ",
    "Tuple should have ": "a list with ",
    "Dictionary should have ": "a mapping with ",
}


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
    known = type(model).model_fields
    later = {name for name, field in known.items() if any(isinstance(mark, Later) for mark in field.metadata)}
    return {
        name: value
        for name, value in fields.items()
        if name not in later or getattr(model, name) != known[name].default
    }


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
        raise translate_error(invalid, field=field, error=error, known=tuple(model.model_fields)) from invalid


def translate_error(
    invalid: ValidationError, *, field: str, error: type[InputError], known: tuple[str, ...]
) -> InputError:
    """The first validation error as ``error``; the hint says how many more there are."""
    first, *rest = invalid.errors(include_url=False)
    path = ".".join(str(part) for part in first["loc"])
    where = ".".join(part for part in (field, path) if part)
    expected, got = _expected_text(first["msg"]), short_repr(first["input"])
    if first["type"] == "extra_forbidden":
        inner = ".".join(str(part) for part in first["loc"][:-1])  # ``known`` holds the top-level fields only
        expected = f"a known field of {inner}" if inner else f"one of the known fields ({', '.join(known)})"
        got = f"unknown field {first['loc'][-1]!r}"
    elif first["type"] == "missing":
        expected, got = "a value (the field is required)", "nothing"
    elif first["type"] == "union_tag_invalid":
        where = f"{where}.{first['ctx']['discriminator'].strip(chr(39))}"
        expected, got = f"one of {first['ctx']['expected_tags']}", repr(first["ctx"]["tag"])
    hint = f"{len(rest)} more field(s) are wrong too" if rest else ""
    return error(where, expected, got, hint)


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


def _expected_text(message: str) -> str:
    if message.startswith("Input should be a valid dictionary"):
        return "a mapping of fields"  # instead of the name of an internal class
    for beginning, instead in _MESSAGE_PREFIXES.items():
        if message.startswith(beginning):
            return instead + message.removeprefix(beginning)
    return message


class _ShortRepr(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxlong, self.maxother = 3, 100, 100, 100

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to format integers of more than 4,300 digits, and is slow for slightly shorter ones."""
        return super().repr_int(x, level) if x.bit_length() <= 1024 else f"an integer of {x.bit_length()} bits"


_SHORT_REPR = _ShortRepr()
