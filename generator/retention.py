"""Retention: which builds of a dataset stay. Whole builds are deleted, manifest first, so that readers see all or none.

Never deleted: the build that readers get, pinned ones, and those that are not finished (``latentmill sweep`` is for
them).
"""

from __future__ import annotations

from pydantic import Field

from generator.canonical import Frozen


class Retention(Frozen):
    """What stays: the ``last`` builds, the last of each of so many ``weeks`` (ISO, from Monday) and ``months``.

    ``null`` weeks or months are all of them. Counted are weeks and months in which there is a build, in UTC, by logical
    date. Builds that gates kept back stay as long as they are among the ``last`` by date, and take nobody's place.
    """

    last: int = Field(default=7, ge=1, le=100_000, strict=True)
    weeks: int | None = Field(default=5, ge=0, le=100_000, strict=True)
    months: int | None = Field(default=12, ge=0, le=100_000, strict=True)
