"""How the numeric libraries of this process and its children use threads; they read it once, when they are loaded."""

from __future__ import annotations

from collections.abc import MutableMapping

from generator.spec.machine import allowed_cores, usable_cores


def set_thread_variables(environment: MutableMapping[str, str]) -> None:
    """Set the variables of OpenMP in ``environment``, except those that the user has set.

    A thread that waits for others sleeps instead of spinning: beside another busy process, spinning threads keep from
    running those for which they wait. With the quota of a container, there are as many threads as it has cores;
    otherwise OpenMP's own number stays, one for each core that the process may run on.
    """
    if not environment.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    if (cores := usable_cores()) < allowed_cores():
        environment.setdefault("OMP_NUM_THREADS", str(cores))
