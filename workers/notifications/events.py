"""Events of runs, and the message body that receivers of an event get."""

from __future__ import annotations

from datetime import datetime

from pydantic import AwareDatetime, Field

from generator.spec.canonical import FrozenModel, canonical_json, sha256_hex
from workers.notifications.config import EventKind

_SENTENCES: dict[EventKind, str] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "refused": "was kept back by its gates",
    "at_risk": "will miss its deadline",
}


class Event(FrozenModel):
    """One event of one run; a run has at most one event of each kind.

    ``run`` is a unique name of the run, ``words`` the reason in plain words. ``dataset`` and ``build`` locate the
    result, if there is one.
    """

    kind: EventKind
    run: str = Field(min_length=1, max_length=300)
    schedule: str = Field(min_length=1, max_length=100)
    logical_date: AwareDatetime
    at: AwareDatetime
    dataset: str = Field(default="", max_length=2000)
    build: str = Field(default="", max_length=100)
    job: str = Field(default="", max_length=100)
    words: str = Field(default="", max_length=10_000)

    @property
    def id(self) -> str:
        """The message id; equal for all notifications of the same event."""
        name = f"{self.run}\n{self.kind}"
        return f"msg_{sha256_hex(name.encode())[:32]}"

    @property
    def sentence(self) -> str:
        """The event in one line."""
        reason = f": {' '.join(self.words.split())}" if self.words else ""
        return f"{self.schedule} of {self.logical_date:%Y-%m-%d %H:%M %Z} {_SENTENCES[self.kind]}{reason}"

    def body(self) -> bytes:
        """The message body: ``type``, ``timestamp`` and ``data`` as in Standard Webhooks, and ``text`` for people."""
        data = self.model_dump(mode="json", exclude={"at", "kind"})
        message = {"type": f"run.{self.kind}", "timestamp": _iso(self.at), "text": self.sentence, "data": data}
        return canonical_json(message)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
