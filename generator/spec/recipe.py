"""The recipe (what is built), the order (for whom and where), and the job spec (both together).

A recipe holds everything that determines bytes; the sha256 of its canonical JSON is the build's identity. An order
holds everything else. Users write a draft (``generator.drafts``), which is resolved against a bundle into a job spec.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from generator.errors import SpecError
from generator.spec.canonical import FrozenModel, digest_of, short_repr
from generator.spec.patterns import pattern
from generator.spec.publication import Citation, Creator, Day, License

RecipeVersion = Literal[1, 2]
RECIPE_VERSION: Literal[2] = 2  # of new recipes
MAX_SAMPLES = 1_000_000_000
MAX_SHARDS = 999_999  # a shard's number has six digits in keys and file names
MAX_COORDINATE = 1e6  # of a code: far larger than any encoder's output, and its square does not overflow
MAX_CODE_NUMBERS = 65_536
MAX_CODE_OBJECT_BYTES = 8 * MAX_CODE_NUMBERS + 4096
MAX_INLINE_NUMBERS = 512  # of a code inside a recipe
MAX_CLUSTERS = 100_000
MAX_MDS_BYTES = 2**32 - 1  # of an MDS shard, whose offsets have 32 bits

Digest = Annotated[
    str, StringConstraints(pattern=pattern(r"^sha256:[0-9a-f]{64}$", "sha256: and 64 digits of 0-9 and a-f"))
]
BuildId = Annotated[str, StringConstraints(pattern=pattern(r"^[0-9a-f]{20}$", "20 digits of 0-9 and a-f"))]
Name = Annotated[
    str,
    StringConstraints(
        pattern=pattern(
            r"^[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?$",
            "lower-case letters, digits, - and _, with a letter or digit at both ends; at most 63",
        )
    ),
]
ClassName = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=pattern(r"^[^\x00-\x1f\x7f]+$", "one line of text"))
]
Count = Annotated[int, Field(ge=0, le=MAX_SAMPLES, strict=True)]
Execution = Literal["eager", "compiled"]  # how a decoder runs: fixed for a build by its environment
ShardFormatName = Literal["webdataset", "parquet", "mds"]
Sidecar = Literal["dali"]  # a further file beside each shard: an index of its samples for NVIDIA DALI
Priority = Annotated[int, Field(ge=-100, le=100, strict=True)]  # among one tenant's jobs, higher priorities run first
LabelFloor = Annotated[float, Field(gt=0.0, lt=1.0)]


def _refuse_number(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):  # pydantic takes 1 for True
        raise ValueError("'auto', true or false")
    return value


AutoOrBool = Annotated[Literal["auto", True, False], BeforeValidator(_refuse_number)]


class PngSettings(FrozenModel):
    """Lossless PNG; ``level`` is 0 (fast, large) to 9 (slow, small). 0: pixels are stored uncompressed. From 4 on: rows
    are filtered by Paeth's predictor instead of the average. From 7 on: the smaller of ISA-L's and zlib's output."""

    format: Literal["png"] = "png"
    level: int = Field(default=6, ge=0, le=9, strict=True)


class JpegSettings(FrozenModel):
    """Lossy JPEG; ``quality``: 1 to 100 as in libjpeg; ``subsampling``: chroma resolution, full by default."""

    format: Literal["jpeg"] = "jpeg"
    quality: int = Field(default=95, ge=1, le=100, strict=True)
    subsampling: Literal["4:4:4", "4:2:0"] = "4:4:4"


ImageSettings = Annotated[PngSettings | JpegSettings, Field(discriminator="format")]

Distance = Annotated[float, Field(gt=0.0, le=1.0)]
Coordinate = Annotated[float, Field(ge=-MAX_COORDINATE, le=MAX_COORDINATE)]
Code = Annotated[tuple[Coordinate, ...], Field(min_length=1, max_length=MAX_INLINE_NUMBERS)]


class RowCode(FrozenModel):
    """The code of a training image, named by its row, from 0, among the codes that the bundle holds."""

    row: int = Field(ge=0, lt=2**31, strict=True)


class StoredCode(FrozenModel):
    """A code that is stored beside the recipe (``generator.spec.code_object``), named by the digest of its bytes."""

    object: Digest


def _code_kind(value: Any) -> str:
    if isinstance(value, RowCode) or (isinstance(value, Mapping) and "row" in value):
        return "(row)"
    return "(object)" if isinstance(value, StoredCode | Mapping) else "(numbers)"


AnyCode = Annotated[
    Annotated[Code, Tag("(numbers)")] | Annotated[RowCode, Tag("(row)")] | Annotated[StoredCode, Tag("(object)")],
    Discriminator(_code_kind),
]


class DistributionDraw(FrozenModel):
    """Samples of the whole latent distribution of a class."""

    mode: Literal["distribution"] = "distribution"


class ClusterDraw(FrozenModel):
    """Samples of one cluster of each class, regardless of its weight; clusters are numbered from 0 in each class."""

    mode: Literal["cluster"] = "cluster"
    cluster: int = Field(ge=0, lt=MAX_CLUSTERS, strict=True)


class AroundDraw(FrozenModel):
    """Samples near ``code`` (numbers, or the name of a code), in the cluster that it most likely belongs to.

    With ``distance`` near 0, samples equal the code; with 1, they only share its cluster. In between, the noise is
    sqrt(1 - distance^2) times the code's plus ``distance`` times the sample's; the cluster's covariance scales it.
    """

    mode: Literal["around"] = "around"
    code: AnyCode
    distance: Distance


class BetweenDraw(FrozenModel):
    """Samples evenly distributed on the line from ``start`` to ``end``; with ``distance``, around the line."""

    mode: Literal["between"] = "between"
    start: AnyCode
    end: AnyCode
    distance: Distance | None = None

    @model_validator(mode="after")
    def _check_same_length(self) -> BetweenDraw:
        start, end = self.start, self.end
        if isinstance(start, tuple) and isinstance(end, tuple) and len(start) != len(end):
            raise ValueError(f"start and end of equal length, not {len(start)} and {len(end)}")
        return self


DrawSettings = Annotated[DistributionDraw | ClusterDraw | AroundDraw | BetweenDraw, Field(discriminator="mode")]


def named_codes(draw: DrawSettings) -> dict[str, RowCode | StoredCode]:
    """The codes of ``draw``, by field, that it names instead of giving their numbers."""
    codes = {name: getattr(draw, name, None) for name in ("code", "start", "end")}
    return {name: code for name, code in codes.items() if isinstance(code, RowCode | StoredCode)}


@dataclass(frozen=True)
class Since:
    """Marks a field of ``Recipe`` that recipes have since ``version``; a recipe of an earlier version has its default.

    ``later``: the field was added after recipes of this version had been stored. It is left out of the canonical JSON
    while it has its default, so the digests of those recipes stay.
    """

    version: int
    later: bool = False


class Recipe(FrozenModel):
    """Everything that determines the bytes of a build.

    ``counts[c]``: number of samples of class ``classes[c]``; an unlabelled bundle has no classes and a single count.
    ``draw``: the part of the latent space that samples come from. ``temperature``: factor of their normal noise; below
    1 they lie nearer to the cluster centres and are more alike (truncation); densities stay those of the distribution.
    ``density_floor``: a quantile in (0, 1); samples less likely than this share of the held-out real codes (and at
    most this share of all samples) are refused and drawn again, at most ``max_attempts`` times each. The same happens
    to images whose label has a probability below ``label_floor`` according to the bundle's judge, and to images that
    are nearer to a training image than the quantile ``novelty_floor`` of the held-out real images. ``label_floors``:
    a label floor for each class instead of one for all; ``None`` for a class whose images are not refused by label.
    ``latents``: whether the tables hold the latent points, to look at; ``auto`` for codes of at most 512 numbers.
    ``revision``: a number that tells builds with otherwise equal recipes apart. A build has at most 999,999 shards of
    up to ``shard_size`` samples. ``published``: the day that card and Croissant file give as the date of publication;
    they state ``license``, ``creator`` and ``citation`` beside it, each only where it is given. Recipes without
    ``published`` are those of earlier releases: their documents and image marks stay as they were. ``page``: whether
    the build has a page, ``index.html``, that shows it without a server.

    A field that is new gets the mark ``Since(version)`` of the version that it begins with, or
    ``Since(version, later=True)`` if recipes of that version are stored already.
    """

    recipe_version: RecipeVersion = RECIPE_VERSION
    bundle: Digest
    classes: tuple[ClassName, ...] = ()
    counts: tuple[Count, ...]
    seed: int = Field(default=0, ge=0, lt=2**63, strict=True)
    image: ImageSettings = PngSettings()
    shard_size: int = Field(default=1000, ge=1, le=100_000, strict=True, validate_default=True)
    batch: int = Field(default=256, ge=1, le=8192, strict=True)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    draw: DrawSettings = DistributionDraw()
    temperature: float = Field(default=1.0, gt=0.0, le=2.0)
    density_floor: float | None = Field(default=None, gt=0.0, lt=1.0)
    label_floor: LabelFloor | None = None
    label_floors: Annotated[tuple[LabelFloor | None, ...] | None, Since(2)] = None
    novelty_floor: float | None = Field(default=None, gt=0.0, le=0.1)
    max_attempts: int = Field(default=100, ge=1, le=10_000, strict=True)
    latents: Annotated[AutoOrBool, Since(2)] = "auto"
    revision: int = Field(default=0, ge=0, lt=2**31, strict=True)
    published: Annotated[Day | None, Since(2, later=True)] = None
    license: Annotated[License | None, Since(2, later=True)] = None
    creator: Annotated[Creator | None, Since(2, later=True)] = None
    citation: Annotated[Citation | None, Since(2, later=True)] = None
    page: Annotated[bool, Field(strict=True), Since(2, later=True)] = False
    format: Annotated[ShardFormatName, Since(2, later=True)] = "webdataset"
    sidecars: Annotated[tuple[Sidecar, ...], Since(2, later=True)] = ()

    @field_validator("*")
    @classmethod
    def _check_version(cls, value: Any, info: ValidationInfo) -> Any:
        field, version = cls.model_fields[info.field_name or ""], info.data.get("recipe_version", RECIPE_VERSION)
        if (since := _since(field)) is not None and version < since.version and value != field.default:
            raise ValueError(
                f"{field.default!r} or nothing in a recipe of version {version}, as the field is new in {since.version}"
            )
        return value

    @field_validator("draw")
    @classmethod
    def _check_codes(cls, draw: DrawSettings, info: ValidationInfo) -> DrawSettings:
        if info.data.get("recipe_version") == 1 and named_codes(draw):
            raise ValueError("codes as numbers in a recipe of version 1")
        return draw

    @field_validator("classes")
    @classmethod
    def _check_distinct_classes(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) != len(classes):
            raise ValueError("classes with distinct names")
        return classes

    @field_validator("counts")
    @classmethod
    def _check_counts(cls, counts: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        wanted = len(info.data.get("classes", ())) or 1
        if "classes" in info.data and len(counts) != wanted:
            raise ValueError(f"{wanted} entries, one per class, not {len(counts)}")
        if not 1 <= sum(counts) <= MAX_SAMPLES:
            raise ValueError(f"a sum between 1 and {MAX_SAMPLES}, not {sum(counts)}")
        return counts

    @field_validator("shard_size")
    @classmethod
    def _check_shard_count(cls, shard_size: int, info: ValidationInfo) -> int:
        total = sum(info.data.get("counts", ()))
        if total > shard_size * MAX_SHARDS:
            minimum = -(-total // MAX_SHARDS)
            raise ValueError(
                f"a shard_size of at least {minimum}, as {total} samples go into at most {MAX_SHARDS} shards"
            )
        return shard_size

    @field_validator("label_floors")
    @classmethod
    def _check_label_floors(
        cls, floors: tuple[float | None, ...] | None, info: ValidationInfo
    ) -> tuple[float | None, ...] | None:
        if floors is None:
            return None
        classes = len(info.data.get("classes", ()))
        if "classes" in info.data and len(floors) != classes:
            raise ValueError(f"{classes} entries, one per class, not {len(floors)}")
        if info.data.get("label_floor") is not None:
            raise ValueError("either label_floor (one for all classes) or label_floors (by class), not both")
        if all(floor is None for floor in floors):
            raise ValueError("a floor of at least one class, or no label_floors")
        return floors

    @field_validator("license", "creator", "citation")
    @classmethod
    def _check_published(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("published", "") is None:
            raise ValueError(f"no {info.field_name} in a recipe without published")
        return value

    @field_validator("sidecars")
    @classmethod
    def _check_sidecars(cls, sidecars: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(set(sidecars)) != len(sidecars):
            raise ValueError("each sidecar once")
        if sidecars and info.data.get("format", "webdataset") != "webdataset":
            raise ValueError(
                f"no sidecars beside shards of the format {info.data['format']}; webdataset shards have them"
            )
        return sidecars

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if self._is_serialized(name)}

    def _is_serialized(self, name: str) -> bool:
        field = type(self).model_fields[name]
        if (since := _since(field)) is None:
            return True
        is_default = getattr(self, name) == field.default
        return self.recipe_version >= since.version and not (since.later and is_default)

    @property
    def class_floors(self) -> tuple[float | None, ...] | None:
        """The label floor of each class, ``None`` for a class without one; ``None`` if no class has one."""
        if self.label_floor is not None:
            return (self.label_floor,) * len(self.counts)
        return self.label_floors

    @property
    def stored_codes(self) -> tuple[str, ...]:
        """The digests of the codes that are stored beside this recipe, ascending."""
        return tuple(sorted({code.object for code in named_codes(self.draw).values() if isinstance(code, StoredCode)}))

    @property
    def total(self) -> int:
        """Number of samples in the build."""
        return sum(self.counts)

    @property
    def labelled(self) -> bool:
        return bool(self.classes)

    @property
    def digest(self) -> str:
        """The build's identity: sha256 of this recipe's canonical JSON. For a stored recipe, hash the stored bytes."""
        return digest_of(self.canonical())


def _since(field: FieldInfo) -> Since | None:
    return next((mark for mark in field.metadata if isinstance(mark, Since)), None)


def check_draw(recipe: Recipe, dims: int, clusters: Sequence[int]) -> None:
    """Raise ``SpecError`` unless ``recipe.draw`` fits ``dims`` latent dimensions and ``clusters`` (per class)."""
    draw = recipe.draw
    if isinstance(draw, ClusterDraw):
        short = [label for label, count in enumerate(recipe.counts) if count and clusters[label] <= draw.cluster]
        if short:
            where = f" in class {short_repr(recipe.classes[short[0]])}" if recipe.labelled else ""
            hint = "Give counts for classes that have it." if recipe.labelled else ""
            last = clusters[short[0]] - 1
            raise SpecError("draw.cluster", f"0 .. {last}{where}" if last else f"0{where}", draw.cluster, hint)
    for name in ("code", "start", "end"):
        code = getattr(draw, name, None)
        if isinstance(code, tuple) and len(code) != dims:
            raise SpecError(f"draw.{name}", f"{dims} numbers, one for each latent dimension", len(code))


class Order(FrozenModel):
    """Who wants a build, and where. Nothing here changes a byte of a shard."""

    destination: str = Field(min_length=1, max_length=1000)
    name: Name
    tenant: Name = "default"
    priority: Priority = 0


def _decode_base64(value: Any) -> Any:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except binascii.Error as broken:
        raise ValueError("bytes in base64") from broken


CodeObject = Annotated[
    bytes,
    Field(max_length=MAX_CODE_OBJECT_BYTES),
    BeforeValidator(_decode_base64),
    PlainSerializer(lambda data: base64.b64encode(data).decode(), return_type=str, when_used="json"),
]


class JobSpec(FrozenModel):
    """A recipe and an order: what ``Client.submit`` and ``generator.production.mill.build`` take.

    ``code_objects``: codes that the recipe names by their digests, until they are stored beside it; base64 in JSON.
    """

    recipe: Recipe
    order: Order
    code_objects: dict[Digest, CodeObject] = Field(default_factory=dict)

    @field_validator("code_objects")
    @classmethod
    def _check_digests(cls, objects: dict[str, bytes]) -> dict[str, bytes]:
        for digest, data in objects.items():
            if digest_of(data) != digest:
                raise ValueError(f"bytes with digest {digest}, not {digest_of(data)}")
        return objects

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return fields if self.code_objects else {"recipe": fields["recipe"], "order": fields["order"]}

    @property
    def build_id(self) -> str:
        """The first 80 bits of the recipe digest; every receipt and the manifest hold the full digest."""
        return build_id_of(self.recipe.digest)

    @property
    def job_id(self) -> str:
        """The id of this build at this destination: the same spec submitted twice has the same job id."""
        return job_id_of(self.order.destination, self.order.name, self.recipe.digest)


def build_prefix(name: str, build_id: str) -> str:
    """The prefix of a build below its destination."""
    return f"{name}/builds/{build_id}"


def build_id_of(recipe_digest: str) -> str:
    """The build id of a recipe, used as directory name: 20 hexadecimal digits."""
    return recipe_digest.removeprefix("sha256:")[:20]


def job_id_of(destination: str, name: str, recipe_digest: str) -> str:
    """The id of the job that builds this recipe under ``name`` at ``destination``."""
    identity = f"{destination}\n{name}\n{recipe_digest}"
    return f"{name}-{digest_of(identity.encode())[7:19]}"
