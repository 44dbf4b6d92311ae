"""Will a run be done in time? Judged by what it has made so far."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from workers.schedules.runs import Run

_MIN_WORK = timedelta(minutes=1)  # of work, before its pace says anything
_IDLE_SHARE = 0.5  # of its time, after which a run that has made nothing is at risk
_UNKNOWN_SHARE = 0.9  # the same, where nobody knows what it has made


class Progress(NamedTuple):
    """Images made, of how many."""

    made: int
    total: int


def deadline_risk(run: Run, now: datetime, progress: Progress | None) -> str:
    """Why ``run`` will not be done by its deadline, in words; empty while it may. ``progress``: ``None`` if unknown."""
    if run.deadline is None or run.committed is not None or run.has_ended:
        return ""
    if now >= run.deadline:
        return f"it was to be done by {_utc_text(run.deadline)}"
    begun = run.submitted or run.created
    gone, whole = now - begun, run.deadline - begun
    if progress is not None and progress.made:
        left = gone * ((progress.total - progress.made) / progress.made)
        if gone < _MIN_WORK or now + left <= run.deadline:
            return ""
        done = f"{progress.made:,} of {progress.total:,} images are made"
        return (
            f"{done}; at this pace it ends at {_utc_text(now + left)}, and was to be done by {_utc_text(run.deadline)}"
        )
    share = _IDLE_SHARE if progress is not None or run.submitted is None else _UNKNOWN_SHARE
    if whole > timedelta() and gone < share * whole:
        return ""
    what = "nothing is made yet" if progress is not None or run.submitted is None else "nobody knows how far it is"
    return f"{what}, and it is to be done by {_utc_text(run.deadline)}"


def _utc_text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
