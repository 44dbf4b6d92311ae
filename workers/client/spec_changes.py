"""A job spec with some of its fields changed, for clones of jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from generator.errors import SpecError
from generator.production.commit import BuildLocation
from generator.production.provenance.manifest import code_key
from generator.spec.canonical import short_repr, validate
from generator.spec.recipe import MAX_CODE_OBJECT_BYTES, JobSpec, Order, Recipe
from generator.store import absolute_url

_COUNTS = ("count", "counts")


def change_spec(location: BuildLocation, order: Order, changes: dict[str, Any]) -> JobSpec:
    """The spec of the build at ``location`` with ``changes``: fields of recipe and order, ``count`` and ``counts``.

    The day of publication is today (UTC) unless it is changed, or the recipe has none. Raises ``SpecError``.
    """
    recipe = location.recipe
    known = {*Recipe.model_fields, *Order.model_fields, *_COUNTS} - {"tenant"}
    for name in changes:
        if name not in known:
            raise SpecError(name, f"one of the fields {', '.join(sorted(known))}", f"unknown field {short_repr(name)}")
    fields = recipe.model_dump(mode="json")
    fields |= {name: value for name, value in changes.items() if name in Recipe.model_fields and name not in _COUNTS}
    if any(name in changes for name in _COUNTS):
        fields["counts"] = _counts(recipe, changes)
    if recipe.published is not None and "published" not in changes:
        fields["published"] = datetime.now(UTC).date().isoformat()
    changed = validate(Recipe, fields, field="", error=SpecError)
    orders = order.model_dump() | {name: value for name, value in changes.items() if name in Order.model_fields}
    new_order = validate(Order, orders, field="", error=SpecError)
    new_order = new_order.model_copy(update={"destination": absolute_url(new_order.destination)})
    kept = set(changed.stored_codes) & set(recipe.stored_codes)
    objects = {digest: location.store.get(code_key(digest), MAX_CODE_OBJECT_BYTES) for digest in kept}
    return validate(
        JobSpec, {"recipe": changed, "order": new_order, "code_objects": objects}, field="", error=SpecError
    )


def _counts(recipe: Recipe, changes: dict[str, Any]) -> list[Any]:
    """The counts by class: ``count`` in total is spread evenly; ``counts`` is a mapping by class name, or a list."""
    counts = changes.get("counts")
    if (counts is None) == (changes.get("count") is None):
        raise SpecError("count", "either count (in total) or counts (by class)", "both, or neither")
    if isinstance(counts, dict):
        for name in counts:
            if name not in recipe.classes:
                raise SpecError(f"counts.{name}", f"a class of the recipe ({', '.join(recipe.classes)})", repr(name))
        return [counts.get(name, 0) for name in recipe.classes]
    if counts is not None:
        return list(counts) if isinstance(counts, list | tuple) else [counts]
    count = changes["count"]
    if not isinstance(count, int) or isinstance(count, bool):
        raise SpecError("count", "a number of images", short_repr(count))
    base, extra = divmod(count, len(recipe.counts))
    return [base + (label < extra) for label in range(len(recipe.counts))]
