"""A diagnosis in words, as it is kept beside a bundle (``reports/``) for people to look at. Imports no torch.

The folder is outside the bundle's digest: a diagnosis is a measurement of the bundle, not a part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from generator.errors import BundleError, BundleMissing, ObjectMissing
from generator.spec.canonical import FrozenModel, read_json, validate
from generator.spec.recipe import Digest
from generator.store.base import Store

PictureName = Literal["map", "centroids", "walks", "neighbours"]
PICTURES: dict[PictureName, str] = {
    "map": "Codes in the plane",
    "centroids": "Cluster centres, decoded",
    "walks": "Walks between codes, decoded",
    "neighbours": "Samples beside the nearest training codes",
}
MAX_PICTURE_BYTES = 8 * 2**20
_REPORT_KEY, _MAX_REPORT_BYTES = "reports/diagnosis.json", 2**20

Line = Annotated[str, Field(max_length=2000)]


class DiagnosisReport(FrozenModel):
    """A diagnosis of the bundle ``bundle`` in words.

    ``quick``: without flow, two-sample tests, round trip and t-SNE. ``kind``, ``sentence``: the verdict; ``sampler``:
    the recommended one, ``because`` why; ``remarks``: more sentences. ``measures``: name and value of each measure.
    ``samplers``: a row for each sampler below ``columns``. ``pictures``: those that are kept.
    """

    report_version: Literal[1] = 1
    bundle: Digest
    seed: int
    quick: bool
    kind: Line
    sentence: Line
    sampler: Line | None
    because: Line
    remarks: tuple[Line, ...] = Field(default=(), max_length=100)
    measures: tuple[tuple[Line, Line], ...] = Field(max_length=100)
    columns: tuple[Line, ...] = Field(max_length=20)
    samplers: tuple[tuple[Line, ...], ...] = Field(max_length=100)
    pictures: tuple[PictureName, ...] = ()


def write_report(bundle: Store, report: DiagnosisReport, pictures: Mapping[PictureName, bytes]) -> None:
    """Keep a diagnosis beside the bundle in ``bundle``, in place of an earlier one; the report last. Raises
    ``StoreError``."""
    for name in report.pictures:
        bundle.put(_picture_key(name), pictures[name])
    bundle.put(_REPORT_KEY, report.canonical())


def read_report(bundle: Store, digest: Digest) -> DiagnosisReport | None:
    """The diagnosis that is kept beside the bundle ``digest``, ``None`` if there is none that this release reads.

    Raises ``StoreError``.
    """
    try:
        data = bundle.get(_REPORT_KEY, _MAX_REPORT_BYTES)
        document = read_json(data, field=_REPORT_KEY, error=BundleError)
        report = validate(DiagnosisReport, document, field=_REPORT_KEY, error=BundleError)
    except (ObjectMissing, BundleError):
        return None
    return report if report.bundle == digest else None


def read_picture(bundle: Store, name: PictureName) -> bytes:
    """A picture of the diagnosis, a PNG file. Raises ``BundleMissing`` if it is not kept, ``StoreError``."""
    try:
        return bundle.get(_picture_key(name), MAX_PICTURE_BYTES)
    except ObjectMissing as missing:
        raise BundleMissing("picture", "a picture of a diagnosis", name, "diagnose the bundle") from missing


def _picture_key(name: PictureName) -> str:
    return f"reports/{name}.png"
