"""What is told: one event of a run, and the message that every receiver of it gets."""

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
    """Something that happened to one run. ``run``: a name of the run that no other run has; one run has one event of a
    kind. ``words``: why, in plain words. ``dataset`` and ``build``: where the result is, as far as there is one."""

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
        """The same for the same event, whoever tells of it and however often."""
        name = f"{self.run}\n{self.kind}"
        return f"msg_{sha256_hex(name.encode())[:32]}"

    @property
    def sentence(self) -> str:
        """The event in one line."""
        why = f": {' '.join(self.words.split())}" if self.words else ""
        return f"{self.schedule} of {self.logical_date:%Y-%m-%d %H:%M %Z} {_SENTENCES[self.kind]}{why}"

    def body(self) -> bytes:
        """The message: ``type``, ``timestamp`` and ``data`` as Standard Webhooks wants them, ``text`` for people."""
        data = self.model_dump(mode="json", exclude={"at", "kind"})
        message = {"type": f"run.{self.kind}", "timestamp": _iso(self.at), "text": self.sentence, "data": data}
        return canonical_json(message)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
