"""The schedule file: its model and validation. All of it is checked before anything is stored."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from generator.curation.gates import Gates
from generator.curation.retention import Retention
from generator.drafts import JobDraft, parse_mapping, read_yaml_file
from generator.errors import SpecError
from generator.spec.canonical import FrozenModel, canonical_json, digest_of, short_repr, validate
from generator.spec.recipe import Digest, Name, Priority
from workers.notifications import Notifications
from workers.schedules.cron import Cron, check_moment
from workers.schedules.templates import fill_templates

CatchUp = Literal["none", "latest", "all"]
Overlap = Literal["skip", "queue", "replace"]

_JOB_FIELDS = (set(JobDraft.model_fields) | {"channel"}) - {"tenant", "priority"}
_TIME_OF_DAY = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_DURATION = re.compile(r"(?:([0-9]{1,3})h)?(?:([0-9]{1,4})m)?")
_SECOND = timedelta(seconds=1)
_PROBE_DATE = datetime(2028, 2, 29, 23, 59, tzinfo=UTC)  # a leap day, late in the evening: a hard case for templates


def _check_deadline(text: object) -> object:
    given = text if isinstance(text, str) else ""  # without quotes, YAML reads 17:30 as a number
    spans = _DURATION.fullmatch(given)
    if _TIME_OF_DAY.fullmatch(given) is None and (spans is None or not any(int(part or 0) for part in spans.groups())):
        raise ValueError('a span ("90m", "2h30m") or a time of day ("07:00"), in quotes')
    return text


def _one_line(text: str) -> str:
    return " ".join(text.split())


class Schedule(FrozenModel):
    """What to build, and when.

    ``cron`` and ``timezone`` give the logical dates; ``start`` and ``end`` bound them (both included; without an offset
    they are local). ``job``: the fields of a job; text may contain templates (``workers.schedules.templates``), and
    ``channel`` may replace ``bundle``, for the newest bundle of a line. The job's ``name`` defaults to the schedule's;
    its ``seed`` defaults to a function of schedule and date. ``catch_up``: what to do with dates missed while no ticker
    ran: ``none`` skips them, ``latest`` builds the last one, ``all`` builds the last ``catch_up_limit`` of them.
    ``overlap``: a date that is due while an earlier run is unfinished is skipped, waits for it, or replaces it.
    ``deadline``: a time span after the date, or a local time of day. ``gates``: conditions for moving ``latest``;
    ``null`` for none. With ``promote: false`` only a person moves ``latest``.
    """

    name: Name
    cron: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]
    timezone: Annotated[str, Field(max_length=100)] = "UTC"
    job: dict[str, Any] = Field(min_length=1, max_length=100)
    tenant: Name = "default"
    priority: Priority = 0
    start: datetime | None = None
    end: datetime | None = None
    catch_up: CatchUp = "latest"
    catch_up_limit: int = Field(default=31, ge=1, le=1000, strict=True)
    overlap: Overlap = "queue"
    deadline: Annotated[str, BeforeValidator(_check_deadline)] | None = None
    paused: bool = False
    promote: bool = True
    gates: Gates | None = Gates()
    retention: Retention | None = None
    notifications: Notifications = Notifications()

    @model_validator(mode="after")
    def _check_whole(self) -> Schedule:
        unknown = sorted(set(self.job) - _JOB_FIELDS)
        if unknown:
            is_schedule_field = unknown[0] in ("tenant", "priority")
            expected = f"one of the fields of a job ({', '.join(sorted(_JOB_FIELDS))})"
            hint = f"{unknown[0]} is a field of the schedule, not of job" if is_schedule_field else ""
            raise SpecError(f"job.{unknown[0]}", expected, f"unknown field {short_repr(unknown[0])}", hint)
        if ("bundle" in self.job) == ("channel" in self.job):
            got = "both" if "bundle" in self.job else "neither"
            raise SpecError("job", "either bundle (a path, a URL, a digest) or channel (a line of bundles)", got)
        try:
            canonical_json(self.job)
        except (TypeError, ValueError, RecursionError) as error:
            raise SpecError("job", "text, numbers, lists and mappings", str(error), "put dates in quotes") from error
        first, last = self.start_utc, self.end_utc
        if first is not None and last is not None and last < first:
            raise SpecError("end", "a moment after start", short_repr(str(self.end)))
        self.job_draft(_PROBE_DATE)
        return self

    @cached_property
    def timetable(self) -> Cron:
        """Its dates. Raises ``SpecError``."""
        return Cron(self.cron, self.timezone)

    @property
    def start_utc(self) -> datetime | None:
        return self._to_utc(self.start, "start")

    @property
    def end_utc(self) -> datetime | None:
        return self._to_utc(self.end, "end")

    def upcoming(self, now: datetime, count: int) -> list[datetime]:
        """The next ``count`` dates later than ``now``, not before ``start``; fewer if ``end`` comes first."""
        start, end = self.start_utc, self.end_utc
        after = now if start is None else max(now, start - _SECOND)
        return [date for date in self.timetable.upcoming(after, count) if end is None or date <= end]

    @property
    def channel(self) -> str | None:
        """The channel that provides the bundle, as a template."""
        return self.job.get("channel")

    def deadline_of(self, date: datetime) -> datetime | None:
        """Deadline of the build of ``date``; ``None`` if the schedule sets none."""
        if self.deadline is None:
            return None
        if clock := _TIME_OF_DAY.fullmatch(self.deadline):
            local = self.timetable.to_local(date).replace(tzinfo=None, fold=0)
            due = datetime.combine(local.date(), time(int(clock[1]), int(clock[2])))
            return self.timetable.to_utc(due if due > local else due + timedelta(days=1))
        hours, minutes = (int(part or 0) for part in _DURATION.fullmatch(self.deadline).groups())  # type: ignore[union-attr]
        return date + timedelta(hours=hours, minutes=minutes)

    def job_fields(self, date: datetime) -> dict[str, Any]:
        """The fields of the job of ``date`` (UTC), without templates, maybe with ``channel``. Raises ``SpecError``."""
        given: dict[str, Any] = {"name": self.name, "seed": seed_of(self.name, date)} | self.job
        local = self.timetable.to_local(date)
        try:
            fields = fill_templates(given, schedule=self.name, date=local)
        except SpecError as error:
            raise _with_job_prefix(error) from error
        return fields | {"tenant": self.tenant, "priority": self.priority}

    def job_draft(self, date: datetime, bundle: str | None = None) -> JobDraft:
        """The job of ``date``, with ``bundle`` in place of its own if given. Raises ``SpecError`` naming the field."""
        fields = self.job_fields(date)
        line = fields.pop("channel", None)
        try:
            validate(_ChannelName, {"channel": line} if line is not None else {}, field="", error=SpecError)
            return validate(JobDraft, fields | ({"bundle": bundle or line} if bundle or line else {}), **_SPEC_ERROR)
        except SpecError as error:
            raise _with_job_prefix(error) from error

    def _to_utc(self, moment: datetime | None, field: str) -> datetime | None:
        if moment is None:
            return None
        moment = check_moment(moment, field)
        return moment.astimezone(UTC) if moment.tzinfo else self.timetable.to_utc(moment)


class _ChannelName(FrozenModel):
    channel: Name | None = None


_SPEC_ERROR: dict[str, Any] = {"field": "", "error": SpecError}


def _with_job_prefix(error: SpecError) -> SpecError:
    return SpecError(f"job.{error.field}" if error.field else "job", error.expected, error.got, error.hint)


def seed_of(name: str, date: datetime) -> int:
    """The seed of a date of a schedule (63 bits of a digest): stable, and different for every date."""
    text = f"{name}\n{date.astimezone(UTC).isoformat()}"
    return int(digest_of(text.encode())[7:23], 16) >> 1


def read_schedule(path: str | Path) -> tuple[Schedule, Digest]:
    """The schedule in a YAML file, and the digest of the file's bytes. Raises ``SpecError``."""
    data = read_yaml_file(path, "schedule")
    return parse_schedule(data, str(path)), digest_of(data)


def parse_schedule(data: bytes, where: str) -> Schedule:
    """The schedule in the YAML bytes ``data``, read from ``where``. Raises ``SpecError`` naming the field."""
    return validate(Schedule, parse_mapping(data, where=where, field="schedule"), field="", error=SpecError)
