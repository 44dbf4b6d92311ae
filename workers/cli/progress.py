"""Progress of long commands on standard error: bars in a terminal, a line of text now and then elsewhere."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, final

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_SECONDS = 10.0  # between two lines


class Bar(ABC):
    """The progress of one command: its stage, and the amount of it that is done."""

    @abstractmethod
    def __call__(self, done: int) -> None:
        """Say how much of this stage is done."""

    @abstractmethod
    def stage(self, label: str, total: int | None = None, unit: str = "") -> None:
        """Begin another stage; ``total`` is ``None`` if unknown."""


@contextmanager
def progress_bar(label: str, total: int | None, *, quiet: bool, unit: str = "images") -> Iterator[Bar]:
    """A bar on standard error, or nothing if ``quiet``. ``total``: ``None`` if unknown.

    Without a terminal, a line every ten seconds instead of a bar, also in stages that do not say how far they are.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal and not quiet:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
        )
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        with Progress(*columns, *times, console=console) as progress:
            yield TerminalBar(progress, label, total, unit)
        return
    with progress_lines(label, total, quiet=quiet, unit=unit) as lines:
        yield lines


@contextmanager
def progress_lines(
    label: str, total: int | None, *, quiet: bool, unit: str = "images", seconds: float = LINE_SECONDS
) -> Iterator[Bar]:
    """A line on standard error every ``seconds``, as long as the block runs, unless ``quiet``."""
    lines = LinesBar(label, total, unit)
    if quiet:
        yield lines
        return
    stopped = threading.Event()
    thread = threading.Thread(target=lines.run, args=(stopped, seconds), name="progress", daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        stopped.set()
        thread.join()


@final
class TerminalBar(Bar):
    """A bar for each stage, one below the other."""

    def __init__(self, progress: Progress, label: str, total: int | None, unit: str) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task(label, total=total, unit=unit)

    def __call__(self, done: int) -> None:
        self._progress.update(self._task, completed=done)

    def stage(self, label: str, total: int | None = None, unit: str = "") -> None:
        task = self._progress.tasks[self._task]
        self._progress.update(self._task, total=task.total or task.completed or 1, completed=task.total or 1)
        self._task = self._progress.add_task(label, total=total, unit=unit)


@final
class LinesBar(Bar):
    """What there is to say of a stage, as one line of text."""

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self._state = (label, total, unit, 0, time.monotonic())  # replaced whole: another thread reads it

    def __call__(self, done: int) -> None:
        label, total, unit, _, started = self._state
        self._state = (label, total, unit, done, started)

    def stage(self, label: str, total: int | None = None, unit: str = "") -> None:
        self._state = (label, total, unit, 0, time.monotonic())

    def line(self) -> str:
        """For example ``training: 120 of 900 steps after 20 s, about 130 s left``."""
        label, total, unit, done, started = self._state
        elapsed = time.monotonic() - started
        amount = f"{done:,} {unit} " if total is None and done else f"{done:,} of {total:,} {unit} " if total else ""
        left = f", about {elapsed * (total - done) / done:.0f} s left" if total and 0 < done < total else ""
        return f"{label}: {amount}after {elapsed:.0f} s{left}"

    def run(self, stopped: threading.Event, seconds: float) -> None:
        """Write a line every ``seconds`` until ``stopped`` is set."""
        while not stopped.wait(seconds):
            with suppress(OSError, ValueError):  # whoever read it may be gone
                click.echo(self.line(), err=True)
