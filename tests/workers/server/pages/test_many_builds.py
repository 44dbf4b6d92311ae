"""The page of a dataset with more builds than a page holds: every build has its verdict and its forms."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from generator.curation.gates import Gates, evaluate_gates
from generator.store import open_store
from tests.support.cli_sandbox import LENIENT_GATES
from tests.support.http_server import RunningServer, running_server
from tests.support.small_builds import SmallBuild
from workers.server.pages.build_rows import PAGE
from workers.settings import Settings

COUNT = PAGE + 3
REFUSED = "The gate images asks for at least 100 images; this build has 1."


def listed(web: RunningServer, start: int) -> tuple[list[str], str]:
    answer = web.get(f"/datasets/place/many?start={start}")
    assert answer.status == 200, answer.body
    text = answer.body.decode()
    return re.findall(r"<tr>\s*<td>(?:<a [^>]*>)?<code>([0-9a-f]{20})", text), text


def test_builds_beyond_the_first_page_have_their_verdicts_too(tmp_path: Path) -> None:
    order = []
    for seed in range(COUNT):
        build = SmallBuild(name="many", classes=(), counts=(1,), seed=seed).commit(str(tmp_path / "place"))[0]
        order.insert(0, build.build_id)
        os.utime(tmp_path / f"place/many/builds/{build.build_id}/manifest.json", (seed, seed))
    dataset = open_store(str(tmp_path / "place" / "many"))
    gates = Gates(**LENIENT_GATES | {"images": 100})
    evaluate_gates(
        dataset, order[-1], gates, logical_date=datetime(2026, 1, 5, 5, tzinfo=ZoneInfo("Europe/Berlin")), bundle=None
    )
    settings = Settings(root=str(tmp_path / "root"), destinations=str(tmp_path / "place"), server_without_keys=True)
    with running_server(settings) as web:
        first, text = listed(web, 0)
        assert first == order[:PAGE]
        assert REFUSED not in text
        assert f'href="?start={PAGE}" rel="next"' in text
        assert 'rel="prev"' not in text
        second, text = listed(web, PAGE)
        assert second == order[PAGE:]
        assert REFUSED in text
        assert '<th scope="col">for (UTC)</th>' in text
        assert "2026-01-05 04:00" in text
        assert f"{PAGE + 1} to {COUNT} of {COUNT}" in text
        assert 'href="?start=0" rel="prev"' in text
        assert 'rel="next"' not in text
        assert listed(web, 400)[0] == order[-1:]  # some builds were deleted meanwhile
        for wrong in ("-1", "x", "501", "9" * 30):
            assert web.get(f"/datasets/place/many?start={wrong}").status == 422
