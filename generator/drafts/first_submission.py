"""The day of publication is fixed by the first submission: ``<name>/published/<id>.json`` beside the builds.

``id`` is the build id that the recipe would have without its day, so all submissions that differ by the day alone share
one record, which is written by a conditional put. The same draft submitted on a later day is then the same build.
"""

from __future__ import annotations

from generator.errors import BuildConflict, DatasetError, ObjectMissing, SpecError
from generator.spec.canonical import FrozenModel, read_json, validate
from generator.spec.publication import Day
from generator.spec.recipe import Digest, Recipe, build_id_of
from generator.store.base import Store
from generator.store.put_once import put_once

MAX_RECORD_BYTES = 64 * 1024


class FirstSubmission(FrozenModel):
    """The day that the first submission fixed for ``recipe``, the digest of the recipe without its day."""

    recipe: Digest
    published: Day


def settle_published(dataset: Store, recipe: Recipe) -> Recipe:
    """``recipe`` with the day that its first submission to ``dataset`` fixed; unchanged if there was none.

    If ``dataset`` holds the build of the same recipe without a day, which an earlier release began, it is that recipe.
    Raises ``DatasetError`` if the record is damaged, ``StoreError``.
    """
    if (first := _read_record(dataset, recipe)) is not None:
        return recipe.model_copy(update={"published": first.published})
    dayless = _dayless(recipe)
    if (recipe.license, recipe.creator, recipe.citation) == (None, None, None):
        earlier = dataset.head(f"builds/{build_id_of(dayless.digest)}/recipe.json")
        return recipe if earlier is None else dayless
    return recipe


def settle_page(dataset: Store, recipe: Recipe) -> Recipe:
    """``recipe``, without its page if a release that made no pages began the build in ``dataset``.

    Raises ``DatasetError`` if a record is damaged, ``StoreError``.
    """
    pageless = recipe.model_copy(update={"page": False})
    if _read_record(dataset, recipe) is not None:
        return recipe
    if _read_record(dataset, pageless) is not None:
        return pageless
    begun = dataset.head(f"builds/{build_id_of(_dayless(pageless).digest)}/recipe.json")
    return recipe if begun is None else pageless


def fix_published(dataset: Store, recipe: Recipe) -> None:
    """Fix the day of ``recipe`` for all later submissions to ``dataset``; a recipe without a day fixes nothing.

    Raises ``SpecError`` if another day is fixed already, ``DatasetError`` if the record is damaged, ``StoreError``.
    """
    if recipe.published is None:
        return
    ours = FirstSubmission(recipe=_dayless(recipe).digest, published=recipe.published)
    try:
        put_once(dataset, _record_key(recipe), ours.canonical())
    except BuildConflict as conflict:
        first = _read_record(dataset, recipe)
        if first is None or first == ours:
            raise
        raise SpecError(
            "published",
            f"{first.published}, which the first submission of this recipe to {dataset.url} fixed",
            recipe.published,
            "leave published out to go on with that build, or choose another revision",
        ) from conflict


def _read_record(dataset: Store, recipe: Recipe) -> FirstSubmission | None:
    key = _record_key(recipe)
    try:
        data = dataset.get(key, MAX_RECORD_BYTES)
    except ObjectMissing:
        return None
    document = read_json(data, field=key, error=DatasetError)
    record = validate(FirstSubmission, document, field=key, error=DatasetError)
    if record.recipe != (wanted := _dayless(recipe).digest):
        raise DatasetError(f"{key}.recipe", wanted, record.recipe)
    return record


def _record_key(recipe: Recipe) -> str:
    return f"published/{build_id_of(_dayless(recipe).digest)}.json"


def _dayless(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"published": None})
