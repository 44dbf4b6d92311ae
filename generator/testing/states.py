"""Run the state machine on a store."""

from __future__ import annotations

from functools import partial

from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import run_state_machine_as_test

from generator.store import Store
from generator.testing.killed_writer import KilledWriter
from generator.testing.state_machine import StoreMachine
from generator.testing.states_run import SHRINK_SECONDS, ShrunkEnough, StatesRun


def check_states(
    store: Store,
    *,
    examples: int = 25,
    steps: int = 15,
    processes: bool | None = None,
    exact_children: bool = True,
    shrink_seconds: float = SHRINK_SECONDS,
) -> dict[str, int]:
    """Run ``examples`` random sequences of ``steps`` operations in ``store``, which is empty and used by nothing else.

    ``processes`` says whether other processes reach the same objects; the default is yes, unless the URL begins with
    ``memory:``. The store must be picklable, its class importable. Returns counts of what was done. Raises
    ``StatesViolation`` with the shortest failing sequence that was found within ``shrink_seconds``.
    """
    if processes is None:
        processes = not store.url.startswith("memory:")
    run = StatesRun(store, None, exact_children=exact_children, shrink_seconds=shrink_seconds)
    limits = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        verbosity=Verbosity.quiet,  # StatesViolation lists the steps
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    if not processes:
        _run(run, limits)
    else:
        with KilledWriter() as run.writer:
            run.measure()
            _run(run, limits)
    return dict(run.counts)


def _run(run: StatesRun, limits: settings) -> None:
    try:
        run_state_machine_as_test(partial(StoreMachine, run), settings=limits)  # type: ignore[arg-type]  # a factory
    except (Exception, ShrunkEnough) as failed:
        if run.failure is None:
            raise
        raise run.failure from failed
