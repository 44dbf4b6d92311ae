"""Measures throughput: one process against its limit, into S3, through the pool, large jobs, and other libraries.

    python benchmarks/throughput.py --peers PYTHON     everything, about 50 minutes on an idle machine
    python benchmarks/throughput.py --quick            few images, without the peers: a smoke test

``PYTHON`` is the interpreter of a separate environment for the peers (``benchmarks/peers.py`` lists what it needs).
Writes rows to ``<out>/throughput.jsonl``; a part that is measured again replaces its rows. Writes the tables of all
rows between two marks of ``<out>/performance.md``. All figures of a table come from the same run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from arguments import directory

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import throughput_report  # noqa: E402
from throughput_parts import PARTS, QUICK, Protocol, ThroughputBench  # noqa: E402


def main() -> int:
    """0 done, 1 failed."""
    args = _arguments()
    log = args.out / "throughput.jsonl"
    with tempfile.TemporaryDirectory(prefix="latentmill-throughput-", dir=args.work) as work:
        protocol = QUICK if args.quick else Protocol(rounds=args.rounds)
        bench = ThroughputBench(protocol, Path(work), args.peers)
        for part in args.parts:
            other_rows = [row for row in rows_of(log) if row["part"] != part]
            new_rows = []
            for row in PARTS[part](bench):
                new_rows.append({"part": part, "commit": _commit()} | row)
                print(json.dumps(new_rows[-1]), file=sys.stderr, flush=True)
            log.write_text("".join(json.dumps(row) + "\n" for row in [*other_rows, *new_rows]))
    page = args.out / "performance.md"
    throughput_report.write(page, rows_of(log))
    print(page)
    return 0


def rows_of(log: Path) -> list[dict[str, Any]]:
    """The rows measured so far."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few images, one round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of everything that is compared")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--peers", type=Path, help="interpreter of the peers' environment; without it no peers")
    parser.add_argument("--out", type=directory, default="out/throughput", help="rows and page")
    parser.add_argument("--work", type=directory, help="directory for scratch files, about 5 GB, removed at the end")
    return parser.parse_args()


def _commit() -> str:
    result = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
