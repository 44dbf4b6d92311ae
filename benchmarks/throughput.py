"""How fast images are made: our line beside its limit, into S3, through the pool, at any length, and beside its peers.

    python benchmarks/throughput.py --peers PYTHON     all of it, about 50 minutes on an idle machine
    python benchmarks/throughput.py --quick            a few images of everything but the peers: for a look

``PYTHON`` is the interpreter of an environment of the peers' own (``benchmarks/peers.py`` says what it needs; for the
encoders also opencv-python-headless, imagecodecs and simplejpeg). Rows go to ``<out>/throughput.jsonl``, one part
after the other; a part that is measured again replaces its rows. The tables of all rows go between two marks of
``<out>/performance.md``. No figure is taken from another run than its neighbours in a table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import throughput_report  # noqa: E402
from throughput_parts import PARTS, QUICK, Protocol, ThroughputBench  # noqa: E402


def main() -> int:
    """0 done, 1 failed."""
    asked = _arguments()
    asked.out.mkdir(parents=True, exist_ok=True)
    log = asked.out / "throughput.jsonl"
    with tempfile.TemporaryDirectory(prefix="latentmill-throughput-", dir=asked.work) as work:
        protocol = QUICK if asked.quick else Protocol(rounds=asked.rounds)
        bench = ThroughputBench(protocol, Path(work), asked.peers)
        for part in asked.parts:
            kept = [row for row in rows_of(log) if row["part"] != part]
            made = []
            for row in PARTS[part](bench):
                made.append({"part": part, "commit": _commit()} | row)
                print(json.dumps(made[-1]), file=sys.stderr, flush=True)
            log.write_text("".join(json.dumps(row) + "\n" for row in [*kept, *made]))
    page = asked.out / "performance.md"
    throughput_report.write(page, rows_of(log))
    print(page)
    return 0


def rows_of(log: Path) -> list[dict[str, Any]]:
    """What was measured so far."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few images, one round")
    parser.add_argument("--rounds", type=int, default=3, help="turns of everything that is compared")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--peers", type=Path, help="interpreter of the peers' environment; without it no peers")
    parser.add_argument("--out", type=Path, default=Path("out/throughput"), help="rows and page")
    parser.add_argument("--work", type=Path, help="where scratch files go, some 5 GB; removed again")
    return parser.parse_args()


def _commit() -> str:
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return told.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
