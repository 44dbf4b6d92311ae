"""The form for new jobs as values of its fields: from and to a draft, and the errors of a draft at their fields."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from generator.errors import LatentmillError
from workers.server.pages.form_fields import FormField, all_fields

Answers = dict[str, str]
MAX_CLASSES = 100  # that the form lists, each with a number of images and a floor
CHANNEL = "channel:"  # before the name of a channel among the choices of a bundle
KEPT = "kept"  # the choice for a draw that only the text can state
_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")
_DRAW_MODES = ("distribution", "cluster", "around", "between")
_PLAIN = (
    "a whole number",
    "a number",
    "at least ",
    "at most ",
    "less than ",
    "more than ",
    "text",
    "a finite",
)  # what pydantic says where the field says more


def draft_of(answers: Mapping[str, str], classes: Sequence[str]) -> dict[str, Any]:
    """The fields of the draft that the form states; those that are empty, or have their defaults, are left out.

    ``classes``: those that the form lists. Numbers that are none stay text, for the draft to refuse.
    """
    draft = dict[str, Any]()
    bundle = answers.get("bundle", "")
    if bundle.startswith(CHANNEL):
        draft["channel"] = bundle.removeprefix(CHANNEL)
    elif bundle:
        draft["bundle"] = bundle
    draft |= _counts(answers, classes)
    draft["destination"] = "/".join(
        part for part in (answers.get("place", ""), answers.get("folder", "").strip("/")) if part
    )
    for field in all_fields():
        value = _value(field, answers.get(field.name, "").strip())
        if value is not None:
            _put(draft, field.name, value[0])
    draft |= _label_floors(answers, classes)
    _settle_image(draft)
    draft |= {"draw": draw} if (draw := _draw(draft.pop("draw", {}))) else {}
    if "kind" in draft.get("creator", {}) and "name" not in draft["creator"]:
        draft.pop("creator")
    return draft | _kept(answers)


def answers_of(draft: Mapping[str, Any], classes: Sequence[str], places: Sequence[str]) -> Answers:
    """The values of the form for a draft; what the form has no field for is kept as it is."""
    answers, kept = Answers(), dict[str, Any]()
    answers["bundle"] = CHANNEL + str(draft["channel"]) if draft.get("channel") else str(draft.get("bundle", ""))
    place, _, folder = str(draft.get("destination", "")).partition("/")
    known = place in places
    answers |= {"place": place if known else str(draft.get("destination", "")), "folder": folder if known else ""}
    names = {field.name.partition(".")[0] for field in all_fields()}
    for name, value in draft.items():
        if name in ("bundle", "channel", "destination", "tenant"):
            continue
        if name in ("counts", "label_floors"):
            listed = isinstance(value, dict) and set(value) <= set(classes) and len(classes) <= MAX_CLASSES
            answers |= _by_class(name, value, classes) if listed else {}
            kept |= {} if listed else {name: value}
        elif name == "draw":
            shown = _draw_answers({"mode": value} if isinstance(value, str) else value)
            answers |= shown or {"draw.mode": KEPT}
            kept |= {} if shown else {name: value}
        elif name == "count":
            answers["count"] = str(value)
        elif name not in names or not _is_plain(value):
            kept[name] = value
        elif isinstance(value, dict):
            answers |= {f"{name}.{inner}": _text(each) for inner, each in value.items()}
        else:
            answers |= _plain_answer(name, value)
    answers["spread"] = "classes" if "counts" in draft else "total"
    return answers | ({KEPT: json.dumps(kept, default=str)} if kept else {})


def text_of(draft: Mapping[str, Any]) -> str:
    """The draft as YAML."""
    return yaml.safe_dump(dict(draft), sort_keys=False, allow_unicode=True, width=1000)


def place_errors(
    errors: Sequence[LatentmillError], classes: Sequence[str]
) -> tuple[dict[str, str], list[LatentmillError]]:
    """What to say at each field, by its name in the form; and the errors that belong to no field."""
    known = {field.name: field for field in all_fields()}
    at, others = dict[str, str](), list[LatentmillError]()
    for error in errors:
        name = _form_field(error.field, classes)
        if name is None:
            others.append(error)
        elif name not in at:
            at[name] = _sentence(error, known.get(name))
    return at, others


def _sentence(error: LatentmillError, field: FormField | None) -> str:
    expected = field.allowed if field and field.allowed and error.expected.startswith(_PLAIN) else error.expected
    if expected.startswith(("a whole number", "a valid")) or error.got != "nothing":
        text = f"Expected {expected}, got {error.got}."
    else:
        text = "This is needed."
    return f"{text} {error.hint[:1].upper()}{error.hint[1:]}." if _is_hint(error.hint) else text


def _is_hint(hint: str) -> bool:
    return bool(hint) and "field(s) are wrong too" not in hint


def _form_field(path: str, classes: Sequence[str]) -> str | None:
    """The field of the form for the path of an error; ``None`` if it has none."""
    first, _, rest = path.partition(".")
    last = rest.rpartition(".")[2]
    if first in ("", "bundle", "channel"):
        return "bundle"
    if first == "destination":
        return "place"
    if first in ("counts", "label_floors"):
        name = rest if rest in classes else rest.rpartition(".")[0]
        prefix = "count-of" if first == "counts" else "floor-of"
        return f"{prefix}-{classes.index(name)}" if name in classes else "count" if first == "counts" else "label_floor"
    if first == "count":
        return "count"
    if first == "draw":
        return _draw_field(rest)
    names = {field.name for field in all_fields()}
    nested = f"{first}.{last}"
    if nested in names:
        return nested
    if first in names:
        return first
    return {"image": "image.format", "creator": "creator.name"}.get(first)


def _draw_field(rest: str) -> str:
    parts = [part for part in rest.split(".") if part]
    if parts[:1] and parts[0] in _DRAW_MODES and len(parts) > 1:
        parts = parts[1:]
    if not parts or parts[0] in ("mode", "distribution"):
        return "draw.mode"
    named = {"cluster": "cluster", "distance": "distance", "end": "end"}
    return "draw." + named.get(parts[0], "reference")


def _value(field: FormField, text: str) -> tuple[Any] | None:
    """The value of a field, in a tuple; ``None`` if it is empty or the default."""
    if not text or (field.kind == "choice" and (text == field.choices[0][0] or text == KEPT)):
        return None
    if field.name == "sidecars":
        return ([text],)
    if field.kind == "choice":
        return ({"true": True, "false": False}.get(text, int(text) if field.name == "recipe_version" else text),)
    if field.kind in ("floor", "date") and text == "none":
        return (None,)
    if field.kind == "whole" and _WHOLE.fullmatch(text):
        return (int(text),)
    return (_number(text),) if field.kind in ("number", "floor") else (text,)


def _number(text: str) -> float | int | str:
    """The number in ``text``, or ``text`` if it is none."""
    try:
        found = float(text)
    except ValueError:
        return text
    return found if math.isfinite(found) and "_" not in text else text


def _whole(text: str) -> int | str:
    return int(text) if _WHOLE.fullmatch(text) else text


def _put(draft: dict[str, Any], name: str, value: Any) -> None:
    outer, _, inner = name.partition(".")
    if not inner:
        draft[outer] = value
    elif isinstance(draft.setdefault(outer, {}), dict):
        draft[outer][inner] = value


def _settle_image(draft: dict[str, Any]) -> None:
    """Keep the settings of the chosen kind of image file: those of the other are on the page too."""
    image = draft.pop("image", {})
    kind = image.get("format", "png")
    wanted = ("level",) if kind == "png" else ("quality", "subsampling")
    settings = {name: value for name, value in image.items() if name in wanted}
    if settings:
        draft["image"] = {"format": kind} | settings
    elif kind != "png":
        draft["image"] = kind


def _draw(draw: Mapping[str, Any]) -> dict[str, Any]:
    """The draw of a draft from the fields of the form; those of other modes are on the page too."""
    mode = draw.get("mode", "distribution")
    distance = {"distance": draw["distance"]} if "distance" in draw else {}
    reference, end = ({"reference": draw[name]} if name in draw else {} for name in ("reference", "end"))
    if mode == "cluster":
        return {"mode": mode} | ({"cluster": draw["cluster"]} if "cluster" in draw else {})
    if mode == "around":
        return {"mode": mode} | reference | distance
    return {"mode": mode, "start": reference, "end": end} | distance if mode == "between" else {}


def _draw_answers(draw: Any) -> Answers:
    """The values of the form for a draw; none if only the text can state it."""
    if not isinstance(draw, dict) or draw.get("mode") not in _DRAW_MODES:
        return {}
    flat = {name: value for name, value in draw.items() if name not in ("start", "end")}
    if draw["mode"] == "between":
        for name, shown in (("start", "reference"), ("end", "end")):
            end = draw.get(name)
            if not isinstance(end, dict) or set(end) - {"reference"}:
                return {}
            flat |= {shown: end["reference"]} if "reference" in end else {}
    if set(flat) - {"mode", "cluster", "reference", "end", "distance"}:
        return {}
    return {f"draw.{name}": _text(value) for name, value in flat.items() if value is not None}


def _counts(answers: Mapping[str, str], classes: Sequence[str]) -> dict[str, Any]:
    if answers.get("spread") != "classes":
        count = answers.get("count", "").strip()
        return {"count": _whole(count)} if count else {}
    stated = {name: answers.get(f"count-of-{number}", "").strip() for number, name in enumerate(classes[:MAX_CLASSES])}
    counts = {name: _whole(text) for name, text in stated.items() if text}
    return {"counts": counts} if counts else {}


def _label_floors(answers: Mapping[str, str], classes: Sequence[str]) -> dict[str, Any]:
    stated = {name: answers.get(f"floor-of-{number}", "").strip() for number, name in enumerate(classes[:MAX_CLASSES])}
    floors = {name: None if text == "none" else _number(text) for name, text in stated.items() if text}
    return {"label_floors": floors} if floors else {}


def _by_class(name: str, values: Mapping[str, Any], classes: Sequence[str]) -> Answers:
    prefix = "count-of" if name == "counts" else "floor-of"
    return {f"{prefix}-{number}": _text(values[each]) for number, each in enumerate(classes) if each in values}


def _plain_answer(name: str, value: Any) -> Answers:
    if name == "image":
        return {"image.format": str(value)}
    if name == "creator":
        return {"creator.name": str(value)}
    if name == "sidecars":
        return {name: "dali" if value else ""}
    if name == "density_floor" and value is None:
        return {}
    return {name: _text(value)}


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_plain(value: Any) -> bool:
    """Whether fields of the form can show it."""
    if isinstance(value, dict):
        return all(not isinstance(each, dict | list | tuple) for each in value.values())
    return not isinstance(value, list | tuple) or list(value) in ([], ["dali"])


def _kept(answers: Mapping[str, str]) -> dict[str, Any]:
    """What an earlier text stated and the form has no fields for."""
    try:
        kept = json.loads(answers.get(KEPT) or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(kept, dict):
        return {}
    return {name: value for name, value in kept.items() if name != "draw" or answers.get("draw.mode") == KEPT}
