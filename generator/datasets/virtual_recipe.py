"""What a virtual dataset is made of: a recipe for each epoch, and a bundle of the store root. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from generator.drafts import JobDraft, check_bundle_fits, check_named_codes, parse_draft, parse_mapping, read_yaml_file
from generator.errors import SpecError
from generator.models.bundle import BundleInfo, read_info
from generator.models.bundle.transfer import bundle_store
from generator.production.commit import BuildLocation
from generator.spec.recipe import JobSpec, Order, Recipe
from generator.spec.seeding import epoch_seed
from generator.store import S3Settings, open_store
from generator.store.base import Store

RecipeLike = Recipe | JobSpec | JobDraft | Mapping[str, Any] | str | Path
RootLike = str | os.PathLike[str] | Store

_NOWHERE = {"destination": "memory://virtual", "name": "virtual"}
_DIGEST = "sha256:"


@dataclass(frozen=True)
class VirtualRecipe:
    """A checked job spec whose images are made by the reader, and the facts of its bundle, which lies in ``root``."""

    spec: JobSpec
    info: BundleInfo
    root: Store

    @property
    def recipe(self) -> Recipe:
        return self.spec.recipe

    def epoch(self, epoch: int) -> Recipe:
        """The recipe of an epoch: the recipe itself in epoch 0, then the same with another seed."""
        return self.recipe.model_copy(update={"seed": epoch_seed(self.recipe.seed, epoch)})

    def location(self, epoch: int) -> BuildLocation:
        """The build that an epoch would be, if it were stored."""
        recipe = self.epoch(epoch)
        store = open_store(_NOWHERE["destination"])
        return BuildLocation(store, self.spec.order.name, recipe, recipe.canonical(), self.spec.code_objects)


def find_virtual_recipe(stated: RecipeLike, root: RootLike | None, s3: S3Settings | None) -> VirtualRecipe:
    """Check ``stated`` against its bundle, of which only ``bundle.json`` and what the draw names are read.

    ``stated``: a recipe, a job spec, or a draft (also as a mapping or a YAML file), which needs neither destination nor
    name and names its bundle by digest. Raises ``SpecError``, ``BundleError``, ``StoreError``.
    """
    store = _open_root(root, s3)
    spec = _find_spec(stated, store)
    bundle = bundle_store(store, spec.recipe.bundle)
    _, info = read_info(bundle, spec.recipe.bundle)
    if info.classes != spec.recipe.classes:
        raise SpecError("classes", f"the bundle's classes {info.classes}", spec.recipe.classes)
    check_bundle_fits(spec.recipe, info)
    check_named_codes(spec, bundle, info)
    if missing := [digest for digest in spec.recipe.stored_codes if digest not in spec.code_objects]:
        raise SpecError("draw", "a job spec that holds the codes its recipe names", f"no code {missing[0]}")
    return VirtualRecipe(spec, info, store)


def _open_root(root: RootLike | None, s3: S3Settings | None) -> Store:
    if isinstance(root, Store):
        return root
    if not isinstance(root, str | os.PathLike):
        got = "none" if root is None else type(root).__name__
        raise SpecError("root", "the URL of the store root that holds the bundle of the recipe", got)
    return open_store(os.fspath(root), s3)


def _find_spec(stated: RecipeLike, root: Store) -> JobSpec:
    if isinstance(stated, JobSpec):
        return stated
    if isinstance(stated, Recipe):
        return JobSpec(recipe=stated, order=Order(**_NOWHERE))
    draft = _find_draft(stated)
    if not draft.bundle.startswith(_DIGEST):
        hint = "latentmill push puts a bundle there and prints its digest"
        raise SpecError(
            "bundle", f"{_DIGEST}<digest> of a bundle in the store root {root.url}", draft.bundle[:200], hint
        )
    if draft.published == "auto":  # nothing is published: the same draft is the same dataset on every day
        draft = draft.model_copy(update={"published": None})
    bundle = bundle_store(root, draft.bundle)
    digest, info = read_info(bundle, draft.bundle)
    return draft.resolve(digest, info, bundle, datetime.now(UTC).date())


def _find_draft(stated: JobDraft | Mapping[str, Any] | str | Path) -> JobDraft:
    if isinstance(stated, JobDraft):
        return stated
    if isinstance(stated, str | Path):
        return parse_draft(
            _NOWHERE | parse_mapping(read_yaml_file(stated, "recipe"), where=str(stated), field="recipe")
        )
    if isinstance(stated, Mapping):
        return parse_draft(_NOWHERE | dict(stated))
    raise SpecError("recipe", "a recipe, a job spec, a draft, or the path of one", type(stated).__name__)
