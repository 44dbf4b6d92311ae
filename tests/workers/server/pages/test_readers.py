"""What pages and API say that readers get is what `open_dataset` finds."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest

from generator.datasets.builds import resolve_build
from generator.datasets.promotion import promote, require_promotion
from generator.errors import DatasetError
from generator.store import open_store
from tests.support.mill_server import MillServer, show

WORDS = {
    "one": "Readers of red/one get build {first}, the only one.",
    "two": "Readers of red/two must name a build: it has 2 builds and none is promoted.",
    "waiting": "Readers of red/waiting must name a build: it has 1 build and none is promoted.",
    "promoted": "Readers of red/promoted get build {first}.",
    "unfinished": "Readers of red/unfinished get nothing yet: no build is finished.",
}


def builds_of(mill: MillServer, name: str) -> list[str]:
    """The jobs and builds of a dataset in the state ``name``, the first build first."""
    place, count = f"{mill.service.home}/places/red", 2 if name in ("two", "promoted") else 1
    dataset, found = open_store(f"{place}/{name}"), list[str]()
    if name == "waiting":
        require_promotion(dataset, by="a test")
    for seed in range(count):
        status = mill.service.submit(name, destination=place, tenant="red", count=20, shard_size=20, seed=seed)
        if name != "unfinished":
            mill.service.serve(2)
        found.append(status.url.rpartition("/")[2])
        if name == "unfinished":
            mill.service.client.cancel(status.job)
    if name == "promoted":
        promote(dataset, found[0], logical_date=None, by="a test")
    return found


@pytest.mark.parametrize("name", WORDS)
def test_pages_and_api_say_what_readers_get(mill: MillServer, name: str) -> None:
    builds = builds_of(mill, name)
    got = ""
    with suppress(DatasetError):
        got = resolve_build(f"{mill.service.home}/places/red/{name}")[1].build_id
    text = show(mill, f"/datasets/red/{name}", "red-reader")
    assert WORDS[name].format(first=builds[0]) in re.sub("<[^>]*>", "", text)
    rows = dict(
        re.findall(
            r"<code>([0-9a-f]{20})</code>(?:</a>)?</td>.*?<td class=\"word\" data-label=\"state\">([a-z ]+)</td>",
            text,
            re.DOTALL,
        )
    )
    assert [build for build, state in rows.items() if state == "what readers get"] == ([got] if got else [])
    answer = mill.web.ask("GET", f"/api/v1/datasets/red/{name}/builds", mill.tokens["red-reader"])
    assert {each["build"] for each in answer.document["items"] if each["current"]} == ({got} if got else set())
    assert set(rows) == set(builds)
