"""Estimates whether a run will finish before its deadline, from its progress so far."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from workers.schedules.runs import Run

_MIN_WORK = timedelta(minutes=1)  # of work before its pace is extrapolated
_IDLE_SHARE = 0.5  # of the time up to the deadline, after which a run without any image is at risk
_UNKNOWN_SHARE = 0.9  # the same for a run whose progress is unknown


class Progress(NamedTuple):
    """Images made so far, and in total."""

    made: int
    total: int


def deadline_risk(run: Run, now: datetime, progress: Progress | None) -> str:
    """Why ``run`` will probably miss its deadline, as text; empty otherwise. ``progress``: ``None`` if unknown."""
    if run.deadline is None or run.committed is not None or run.has_ended:
        return ""
    if now >= run.deadline:
        return f"the deadline was {_utc_text(run.deadline)}"
    started = run.submitted or run.created
    elapsed, available = now - started, run.deadline - started
    if progress is not None and progress.made:
        left = elapsed * ((progress.total - progress.made) / progress.made)
        if elapsed < _MIN_WORK or now + left <= run.deadline:
            return ""
        done = f"{progress.made:,} of {progress.total:,} images made"
        return f"{done}; at this pace it ends at {_utc_text(now + left)}, after its deadline {_utc_text(run.deadline)}"
    share = _IDLE_SHARE if progress is not None or run.submitted is None else _UNKNOWN_SHARE
    if available > timedelta() and elapsed < share * available:
        return ""
    problem = "no image made yet" if progress is not None or run.submitted is None else "its progress is unknown"
    return f"{problem}, and its deadline is {_utc_text(run.deadline)}"


def _utc_text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
