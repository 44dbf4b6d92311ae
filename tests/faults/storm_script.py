"""One short storm in a process of its own, so that several rage at once; prints its outcome as JSON.

Words: seed, bundle, port of the S3 server, directory, and "failover" for a Redis behind a Sentinel.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from tests.faults.storm import StormSettings, StormTarget, run_storm
from tests.support.servers import S3Server

SHORT = StormSettings(shards=16, workers=2, pause=1.5, storm_seconds=20.0, limit_seconds=200.0, forked=True)


class RunningS3(S3Server):
    """The S3 server of another process, at this port."""

    def __init__(self, port: int) -> None:
        self.port = port


if __name__ == "__main__":
    seed, bundle, port, home, *failover = sys.argv[1:]
    target = StormTarget(Path(bundle), replace(SHORT, failover=bool(failover)))
    outcome = run_storm(int(seed), target, RunningS3(int(port)), Path(home))
    sys.stdout.write(json.dumps(outcome))
