"""A short storm of three seeds; ``make storm`` runs twenty long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundles import tiny_bundle
from tests.faults.storm import Target, Weather, run_storm
from tests.faults.storms import OUTCOMES, PAGE, table
from tests.servers import S3Server

SHORT = Weather(shards=16, workers=2, pause=1.5, storm_seconds=20.0, limit_seconds=200.0)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return Target(tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny"), SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [101, 102, 103])
def test_a_storm_loses_nothing(seed: int, target: Target, s3_server: S3Server, tmp_path: Path) -> None:
    outcome = run_storm(seed, target, s3_server, tmp_path / "storm")
    assert outcome["problems"] == [], outcome
    assert outcome["objects_equal"] == outcome["objects"] > 3 * SHORT.shards
    assert sum(outcome["events"].values()) >= 5
    assert outcome["faults"]["500"] > 0


def test_the_page_tells_of_every_storm_that_was_recorded() -> None:
    assert table(OUTCOMES.read_text().splitlines()) in PAGE.read_text()
