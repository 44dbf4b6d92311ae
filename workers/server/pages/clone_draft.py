"""A job as the draft that would make it again: for forms that begin with a job that exists."""

from __future__ import annotations

from typing import Any

from generator.drafts.references import has_map
from generator.models.autoencoders.config import limit_batch
from generator.models.bundle import BundleInfo
from generator.spec.recipe import AroundDraw, BetweenDraw, ClusterDraw, DistributionDraw, Recipe, RowCode, StoredCode
from workers.server.specs import DraftBody

_PLAIN = ("seed", "shard_size", "dtype", "temperature", "density_floor", "max_attempts", "latents", "revision")
_OTHERS = ("license", "creator", "citation", "format", "sidecars")


def draft_of_recipe(
    recipe: Recipe, info: BundleInfo | None, *, destination: str, name: str, priority: int = 0
) -> tuple[dict[str, Any], str]:
    """The draft of a job, and a sentence about what of it a draft cannot state (empty: nothing).

    ``info``: of its bundle, if it is there; what the bundle gives by itself is left out. The day of publication is left
    out too: it is that of the next submission.
    """
    draft: dict[str, Any] = {"bundle": recipe.bundle} | _counts(recipe)
    draft |= {"destination": destination, "name": name}
    plain = recipe.model_dump(mode="json", include={*_PLAIN, *_OTHERS})
    draft |= {name: value for name, value in plain.items() if value != _default(name)}
    draft |= _image(recipe) | _floors(recipe, info)
    if info is None or recipe.batch != limit_batch(info.autoencoder, int(_default("batch"))):
        draft["batch"] = recipe.batch
    if recipe.recipe_version != _default("recipe_version"):
        draft["recipe_version"] = recipe.recipe_version
    elif recipe.published is None:
        draft["published"] = None
    elif not recipe.page:
        draft["page"] = False
    if priority:
        draft["priority"] = priority
    draw = _draw(recipe, info)
    if draw is None:
        return draft, "Its draw is not carried over: only its build has the code that it draws near."
    return draft | draw, ""


def _default(name: str) -> Any:
    value = DraftBody.model_fields[name].default
    return list(value) if isinstance(value, tuple) else value


def _counts(recipe: Recipe) -> dict[str, Any]:
    base, extra = divmod(recipe.total, len(recipe.counts))
    if recipe.counts == tuple(base + (label < extra) for label in range(len(recipe.counts))):
        return {"count": recipe.total}
    return {"counts": {name: count for name, count in zip(recipe.classes, recipe.counts, strict=True) if count}}


def _image(recipe: Recipe) -> dict[str, Any]:
    fields = type(recipe.image).model_fields
    stated = recipe.image.model_dump(mode="json")
    changed = {name: value for name, value in stated.items() if name != "format" and value != fields[name].default}
    if changed:
        return {"image": {"format": stated["format"]} | changed}
    return {"image": stated["format"]} if stated["format"] != "png" else {}


def _floors(recipe: Recipe, info: BundleInfo | None) -> dict[str, Any]:
    """The floors that are not those that the bundle gives by itself."""
    found = dict[str, Any]()
    usual = info.passing.label_floors or (None,) * len(recipe.counts) if info else None
    floors = recipe.class_floors or (None,) * len(recipe.counts)
    if floors != usual:
        same = len(set(floors)) == 1
        found |= (
            {"label_floor": floors[0]} if same else {"label_floors": dict(zip(recipe.classes, floors, strict=True))}
        )
    if info is None or recipe.novelty_floor != info.passing.novelty_floor:
        found["novelty_floor"] = recipe.novelty_floor
    return found


def _draw(recipe: Recipe, info: BundleInfo | None) -> dict[str, Any] | None:
    draw = recipe.draw
    if isinstance(draw, DistributionDraw):
        return {}
    if isinstance(draw, ClusterDraw):
        return {"draw": draw.model_dump()}
    if info is None or has_map(info):  # its codes are base points, which drafts do not state
        return None
    distance = {} if draw.distance is None else {"distance": draw.distance}
    if isinstance(draw, AroundDraw):
        code = _reference(draw.code)
        return code and {"draw": {"mode": draw.mode} | code | distance}
    assert isinstance(draw, BetweenDraw)
    start, end = _reference(draw.start), _reference(draw.end)
    return {"draw": {"mode": draw.mode, "start": start, "end": end} | distance} if start and end else None


def _reference(code: tuple[float, ...] | RowCode | StoredCode) -> dict[str, Any] | None:
    if isinstance(code, StoredCode):
        return None
    return {"reference": code.row} if isinstance(code, RowCode) else {"code": list(code)}
