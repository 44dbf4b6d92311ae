"""The job draft that a user writes: a flat job spec, in YAML or Python, that refers to a bundle.

A draft is resolved with the bundle's ``bundle.json`` to a ``JobSpec``: the bundle's digest is pinned, a total is spread
over the classes, class names become labels, a local destination becomes absolute, references become codes.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, StrictInt, field_validator

from generator.drafts.first_submission import settle_page, settle_published
from generator.drafts.references import CodeResolver, DrawDraft
from generator.errors import BundleError, SpecError
from generator.models.autoencoders.config import limit_batch
from generator.models.bundle import COPY_INDEX_FILE, JUDGE_FILE, BundleInfo, bundle_store, read_info
from generator.spec.canonical import FrozenModel, short_repr, validate
from generator.spec.publication import Citation, Creator, DayOrAuto, License
from generator.spec.recipe import (
    MAX_MDS_BYTES,
    MAX_SAMPLES,
    RECIPE_VERSION,
    AutoOrBool,
    Count,
    DistributionDraw,
    ImageSettings,
    JobSpec,
    LabelFloor,
    Name,
    Order,
    PngSettings,
    Priority,
    Recipe,
    RecipeVersion,
    ShardFormatName,
    Sidecar,
    check_draw,
)
from generator.store import S3Settings, absolute_url, open_store
from generator.store.base import Store

MAX_SPEC_BYTES = 1024 * 1024
_JUDGE = (JUDGE_FILE, "a bundle with a judge (a labelled source, trained without --judges 0)")
_FLOORS = {
    "label_floor": _JUDGE,
    "label_floors": _JUDGE,
    "novelty_floor": (COPY_INDEX_FILE, "a bundle with a copy index (a source with at least 1,000 images)"),
}
_FACTS_BYTES = 4096  # of one sample beside its pixels
_MAX_NUMBER_CHARS = 10_000  # parsing YAML's base-60 numbers takes quadratic time


class JobDraft(FrozenModel):
    """A job as a user writes it. Omitted fields have the defaults of ``Recipe`` and ``Order``.

    ``bundle``: a bundle directory, its URL, or ``sha256:<digest>`` of one in the store root. ``count``: images in
    total, spread evenly over the classes; or ``counts``: images by class name. ``image``: ``png``, ``jpeg``, or a
    mapping with ``format`` and its settings. ``draw``: as in the recipe, but codes may be references. ``label_floor``
    and ``novelty_floor``: ``auto`` means 0.5 and 0.001 if the bundle has a judge or a copy index, respectively; it
    means none if the bundle lacks it, or if more than half of the bundle's samples would be refused; ``label_floor``
    is decided class by class. ``label_floors``: floors of some classes, by name, in place of ``label_floor``; ``None``
    for none. ``batch``: by default less than 250 for an imported decoder whose values are large. ``recipe_version``: 1
    to go on with a build that an earlier release began, or to make one again byte for byte. ``published``: the day of
    publication; ``auto`` means the day that the first submission fixed, or else the logical date of a schedule's run,
    or else today (UTC); it means none for a build that an earlier release began, and ``None`` asks for such a build.
    ``creator``: a name, or a mapping with ``name``, ``kind`` (``organization`` or ``person``) and ``url``. ``page``:
    whether the build gets a page, ``index.html``; ``auto`` means yes, but no for a build that an earlier release began.
    ``format``: of the shards: ``webdataset``, ``parquet`` or ``mds``. ``sidecars``: ``[dali]`` for an index beside each
    WebDataset shard.
    """

    recipe_version: RecipeVersion = RECIPE_VERSION
    bundle: str = Field(min_length=1, max_length=1000)
    destination: str = Field(min_length=1, max_length=1000)
    name: Name
    tenant: Name = "default"
    priority: Priority = 0
    count: int | None = Field(default=None, ge=1, le=MAX_SAMPLES, strict=True)
    counts: dict[str, Count] | None = Field(default=None, min_length=1)
    seed: StrictInt = 0
    image: ImageSettings = PngSettings()
    shard_size: StrictInt = 1000
    batch: StrictInt = 250  # four batches fill a shard of 1,000 without padding
    dtype: str = "float32"
    draw: DrawDraft = DistributionDraw()
    temperature: float = 1.0
    density_floor: float | None = None
    label_floor: float | Literal["auto"] | None = "auto"
    label_floors: dict[str, LabelFloor | None] | None = Field(default=None, min_length=1)
    novelty_floor: float | Literal["auto"] | None = "auto"
    max_attempts: StrictInt = 100
    latents: AutoOrBool = "auto"
    revision: StrictInt = 0
    published: DayOrAuto | None = "auto"
    license: License | None = None
    creator: Creator | None = None
    citation: Citation | None = None
    page: AutoOrBool = "auto"
    format: ShardFormatName = "webdataset"
    sidecars: tuple[Sidecar, ...] = ()

    @field_validator("creator", mode="before")
    @classmethod
    def _expand_creator(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("image", mode="before")
    @classmethod
    def _expand_format(cls, value: Any) -> Any:
        return {"format": value} if isinstance(value, str) else value

    @field_validator("draw", mode="before")
    @classmethod
    def _expand_mode(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value

    def resolve(self, digest: str, info: BundleInfo, bundle: Store, day: date) -> JobSpec:
        """The job spec for the bundle ``digest`` with the facts ``info``, which lies in the store ``bundle``.

        ``day``: what ``auto`` means as the day of publication. Raises ``SpecError``, and ``BundleError`` if the bundle
        lacks a file that ``draw`` refers to.
        """
        order = {"destination", "name", "tenant", "priority"}
        fields = self.model_dump(exclude={"bundle", "count", "counts", "draw", "label_floor", "label_floors"} | order)
        counts = self._class_counts(info.classes)
        resolver = CodeResolver(bundle, info, counts)
        draw = resolver.resolve_draw(self.draw)
        recipe_fields = {"bundle": digest, "classes": info.classes, "counts": counts, "draw": draw, **fields}
        recipe_fields |= self._label_floors(info)
        if "batch" not in self.model_fields_set:
            recipe_fields["batch"] = limit_batch(info.autoencoder, self.batch)
        if self.published == "auto":
            recipe_fields["published"] = day.isoformat() if self.recipe_version > 1 else None
        if self.page == "auto":
            recipe_fields["page"] = recipe_fields["published"] is not None
        if self.novelty_floor == "auto":
            recipe_fields["novelty_floor"] = info.passing.novelty_floor
        recipe = validate(Recipe, recipe_fields, field="", error=SpecError)
        check_bundle_fits(recipe, info)
        return JobSpec(
            recipe=recipe,
            order=Order(
                destination=absolute_url(self.destination), name=self.name, tenant=self.tenant, priority=self.priority
            ),
            code_objects=resolver.objects,
        )

    def _label_floors(self, info: BundleInfo) -> dict[str, Any]:
        """The recipe's ``label_floor`` where it is the same for every class, else its ``label_floors``."""
        named, classes, common = self.label_floors or {}, info.classes, self.label_floor
        for name in named:
            _check_class("label_floors", name, classes)
        if not named and (common != "auto" or self.recipe_version == 1):
            return {"label_floor": info.passing.label_floor if common == "auto" else common}
        unnamed = (common,) * len(classes) if common != "auto" else info.passing.label_floors or (None,) * len(classes)
        floors = tuple(named.get(name, floor) for name, floor in zip(classes, unnamed, strict=True))
        return {"label_floors": floors} if len(set(floors)) > 1 else {"label_floor": floors[0] if floors else None}

    def _class_counts(self, classes: tuple[str, ...]) -> tuple[int, ...]:
        if (self.count is None) == (self.counts is None):
            got = "neither" if self.count is None else "both"
            raise SpecError("count", "either count (in total) or counts (by class)", got)
        if self.count is not None:
            base, extra = divmod(self.count, max(1, len(classes)))
            return tuple(base + (label < extra) for label in range(max(1, len(classes))))
        counts = self.counts or {}
        for name in counts:
            _check_class("counts", name, classes, "give count instead")
        return tuple(counts.get(name, 0) for name in classes)


def _check_class(field: str, name: str, classes: tuple[str, ...], remedy: str = "leave it out") -> None:
    if name not in classes:
        known = ", ".join(classes) or f"none: the bundle is unlabelled, {remedy}"
        raise SpecError(f"{field}.{name}", f"a class of the bundle ({known})", repr(name))


def parse_draft(fields: dict[str, Any]) -> JobDraft:
    """A draft from plain values. Raises ``SpecError`` naming the wrong field."""
    return validate(JobDraft, fields, field="", error=SpecError)


def read_draft(path: str | Path) -> JobDraft:
    """The draft in a YAML (or JSON) file; relative bundle and destination paths are relative to the working directory.

    Raises ``SpecError`` naming the file or the field.
    """
    return parse_draft(parse_mapping(read_yaml_file(path), where=str(path)))


def read_yaml_file(path: str | Path, field: str = "spec") -> bytes:
    """The bytes of a YAML file; at most one byte more than ``parse_mapping`` accepts, so that it can refuse the rest.

    Raises ``SpecError`` if the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_SPEC_BYTES + 1)
    except OSError as missing:
        raise SpecError(field, "a YAML file that can be read", f"{path} ({missing.strerror})") from missing


def parse_mapping(data: bytes, *, where: str, field: str = "spec") -> dict[str, Any]:
    """Parse a YAML (or JSON) mapping that was read from ``where``. Raises ``SpecError`` naming ``where``."""
    if len(data) > MAX_SPEC_BYTES:
        raise SpecError(field, f"at most {MAX_SPEC_BYTES} bytes", f"more in {where}")
    try:
        document = _load_yaml(data)
    except (yaml.YAMLError, RecursionError, ValueError) as broken:
        raise SpecError(field, "a YAML mapping", f"{where}, which does not parse ({broken})") from broken
    if not isinstance(document, dict):
        raise SpecError(field, "a YAML mapping of fields", f"{type(document).__name__} in {where}")
    return document


_TEXT_TAG = "tag:yaml.org,2002:str"
_KEY_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "null", "timestamp"))


class _StrictLoader(yaml.SafeLoader):
    """Refuses YAML that is easily misread (duplicate keys) or slow to parse (aliases, long numbers).

    Keys are text as written, also where YAML reads numbers, booleans or dates: classes are named ``3``, ``no``.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()  # type: ignore[no-untyped-call]
            got = f"the alias *{short_repr(alias.anchor)[1:-1]} in line {alias.start_mark.line + 1}"
            raise SpecError("spec", "YAML without aliases", got, "write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag in _KEY_TAGS:
                key.tag = _TEXT_TAG
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in seen:
                raise SpecError(
                    key.value, "each key once", f"a second {short_repr(key.value)} in line {key.start_mark.line + 1}"
                )
            seen |= {name} - {None}
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if node.tag.endswith((":int", ":float")) and len(node.value) > _MAX_NUMBER_CHARS:
            got = f"a number of {len(node.value)} characters in line {node.start_mark.line + 1}"
            raise SpecError("spec", f"numbers of at most {_MAX_NUMBER_CHARS} characters", got)
        return super().construct_scalar(node)


def _load_yaml(data: bytes) -> Any:
    loader = _StrictLoader(data)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def check_bundle_fits(recipe: Recipe, info: BundleInfo) -> None:
    """Raise ``SpecError`` if the bundle with the facts ``info`` lacks a part that ``recipe`` needs."""
    for field, (part, remedy) in _FLOORS.items():
        if (asked := getattr(recipe, field)) is not None and part not in info.files:
            raise SpecError(field, f"{remedy}, or no {field}", asked)
    most = MAX_MDS_BYTES // _sample_bytes(info)
    if recipe.format == "mds" and min(recipe.shard_size, recipe.total) > most:
        raise SpecError("shard_size", f"at most {most}, as MDS shards have less than 4 GiB", recipe.shard_size)
    classes, stored = len(recipe.counts), info.latents.get("clusters")
    known = isinstance(stored, list) and len(stored) == classes and all(isinstance(size, int) for size in stored)
    clusters: list[int] = list(stored) if known and stored else [1] * classes
    check_draw(recipe, info.latent_dim, clusters)


def _sample_bytes(info: BundleInfo) -> int:
    """Bytes of an uncompressed image with its facts: an upper bound of what it takes in a shard."""
    return info.image.height * info.image.width * info.image.channels + _FACTS_BYTES


def find_bundle(reference: str, root: Store | None, s3: S3Settings | None = None) -> Store:
    """The store of a draft's bundle: a directory, a URL, or a digest in the store root. Raises ``BundleError``."""
    if not reference.startswith("sha256:"):
        return open_store(reference, s3)
    if root is None:
        raise BundleError("bundle", "a path or URL (no store root is configured)", reference)
    return bundle_store(root, reference)


def resolve_draft(
    draft: JobDraft, root: Store | None = None, s3: S3Settings | None = None, *, day: date | None = None
) -> tuple[JobSpec, Store]:
    """The job spec of a draft, and the store of its bundle.

    ``day``: the day of publication of a first submission, by default today (UTC). Only ``bundle.json``, the files that
    ``draw`` refers to and, for ``published`` or ``page`` of ``auto``, what the destination says of earlier submissions
    are read.
    """
    bundle = find_bundle(draft.bundle, root, s3)
    digest, info = read_info(bundle, draft.bundle if draft.bundle.startswith("sha256:") else None)
    spec = draft.resolve(digest, info, bundle, day or datetime.now(UTC).date())
    dataset, recipe = open_store(spec.order.destination, s3).at(spec.order.name), spec.recipe
    if draft.page == "auto" and recipe.page:
        recipe = settle_page(dataset, recipe)
    if draft.published == "auto" and recipe.published is not None:
        recipe = settle_published(dataset, recipe)
    return spec.model_copy(update={"recipe": recipe}), bundle
