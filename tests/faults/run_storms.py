"""Runs many storms, one after the other: ``python -m tests.faults.run_storms --seeds 20`` (``make storm``).

Each outcome is a line of JSON, appended as soon as its storm has ended; the table in ``docs/reliability.md`` is written
from all lines of the file. Exit code 1 if any storm of this run had a problem.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.faults.process_reaper import ProcessReaper
from tests.faults.s3_proxy import Fault
from tests.faults.storm import StormSettings, StormTarget, run_storm
from tests.support.bundles import tiny_bundle
from tests.support.servers import s3_service

ROOT = Path(__file__).parents[2]
OUTCOMES, PAGE = ROOT / "benchmarks/storms.jsonl", ROOT / "docs/reliability.md"
_BEGIN, _END = "<!-- storms: written by make storm -->", "<!-- end of storms -->"
_COLUMNS = {
    "seed": "seed",
    "outcome": "outcome",
    "objects": "objects equal",
    "seconds": "seconds",
    "kills": "workers and processes killed",
    "left": "asked to leave",
    "stopped": "stopped past the lease",
    "redis": "Redis killed",
    "flushed": "flushed",
    "tickets": "tickets lost or twice",
    "faults": "store requests that failed",
    "looks": "looks of the reader (whole)",
    "revision": "commit",
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Run storms of faults against a pool, one for each seed.")
    parser.add_argument("--seeds", type=int, default=20, help="number of storms")
    parser.add_argument("--first", type=int, default=1, help="first seed")
    parser.add_argument("--shards", type=int, default=StormSettings.shards, help="shards of each job")
    parser.add_argument(
        "--failover", action="store_true", help="Redis behind a Sentinel; its master is lost once, for good"
    )
    parser.add_argument("--outcomes", type=Path, default=OUTCOMES, help="file of JSON lines to append to")
    parser.add_argument("--page", type=Path, default=PAGE, help="page whose table is rewritten")
    options = parser.parse_args()
    failed = 0
    with ProcessReaper(), tempfile.TemporaryDirectory(prefix="latentmill-storm-") as directory:
        home, s3 = Path(directory), s3_service()
        try:
            target = StormTarget(
                tiny_bundle(home / "tiny"), StormSettings(shards=options.shards, failover=options.failover)
            )
            for seed in range(options.first, options.first + options.seeds):
                outcome = run_storm(seed, target, s3, home / f"storm-{seed}") | {"revision": _revision()}
                failed += outcome["state"] != "whole"
                with options.outcomes.open("a") as lines:
                    lines.write(json.dumps(outcome) + "\n")
                write_table(options.outcomes, options.page)
                sys.stdout.write(json.dumps(outcome) + "\n")
                sys.stdout.flush()
        finally:
            s3.stop()
    return int(failed > 0)


def write_table(outcomes: Path, page: Path) -> None:
    """Write the table of all ``outcomes`` between the two marks in ``page``, if the page exists."""
    if not page.exists():
        return
    before, _, rest = page.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    page.write_text(f"{before}{_BEGIN}\n{table(outcomes.read_text().splitlines())}\n{_END}{after}")


def table(lines: list[str]) -> str:
    """The outcomes as Markdown, in the order of their lines."""
    rows = [_row(json.loads(line)) for line in lines]
    head = f"| {' | '.join(_COLUMNS.values())} |\n|{'---|' * len(_COLUMNS)}"
    return "\n".join([head, *(f"| {' | '.join(str(row[name]) for name in _COLUMNS)} |" for row in rows)])


def _row(outcome: dict[str, Any]) -> dict[str, object]:
    events, faults = outcome["events"], outcome["faults"]
    failed_requests = sum(number for fault, number in faults.items() if fault != Fault.TWICE)

    def times(*kinds: str) -> int:
        return sum(events.get(kind, 0) for kind in kinds)

    return {
        "seed": outcome["seed"],
        "outcome": "whole"
        if outcome["state"] == "whole"
        else f"**failed**: {'; '.join(each.partition(';')[0] for each in outcome['problems'])[:200]}",
        "objects": f"{outcome['objects_equal']} of {outcome['objects']}",
        "seconds": outcome["seconds"],
        "kills": times("worker killed", "pool process killed", "main process killed"),
        "left": times("worker asked to leave"),
        "stopped": times("worker stopped past its lease"),
        "redis": f"{times('Redis killed and restarted')}{' (fail-over)' if outcome.get('failover') else ''}",
        "flushed": times("Redis flushed"),
        "tickets": times("tickets lost", "tickets twice"),
        "faults": f"{failed_requests} of {outcome['requests']} "
        f"({100 * failed_requests / max(1, outcome['requests']):.0f}%)",
        "looks": f"{outcome['looks']} ({outcome['whole_looks']})",
        "revision": outcome["revision"],
    }


def _revision() -> str:
    """The commit under test; "unknown" outside a checkout."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return git.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
