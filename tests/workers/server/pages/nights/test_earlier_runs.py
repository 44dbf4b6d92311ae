"""A date that is run again keeps what came of its earlier runs, and shows nothing of another tenant's."""

from __future__ import annotations

import re

import pytest

from generator.store import open_store
from tests.support.mill_server import MillServer, send, show
from tests.support.night_scene import NightScene, last_dates
from workers.schedules.cron import date_key
from workers.schedules.runs import EarlierTake, update_run

DATE = last_dates(1)[0]
EVIL = "<script>alert(1)</script>"


def run_of(text: str, section: str = f"run-{date_key(DATE)}") -> str:
    found = re.search(rf'<section class="run" id="{section}".*?</section>', text, re.DOTALL)
    assert found
    return found[0]


@pytest.fixture(scope="module")
def mended(mill: MillServer) -> NightScene:
    """A date that was refused, and promoted when it was run again by other gates."""
    scene = NightScene(mill, "mended")
    scene.declare(images=5000)
    assert scene.night(DATE).state == "refused"
    assert "earlier run" not in show(mill, "/nights/mended")
    scene.declare(images=20)
    assert send(mill, "/nights/mended/run", date=DATE.isoformat()).status == 303
    scene.finish()
    assert scene.run(DATE).state == "promoted"
    return scene


def test_a_promoted_date_says_that_it_was_refused_before_and_why(mill: MillServer, mended: NightScene) -> None:
    shown = run_of(show(mill, "/nights/mended", "red-reader"))
    assert "Readers get this build." in shown
    earlier = shown.partition("An earlier run of this date")[2]
    assert re.search(r'<span class="state refused">refused</span> \d{4}-\d\d-\d\d \d\d:\d\d: [^<]*5,?000', earlier)
    assert "the same build" in earlier
    (run,) = mill.web.ask("GET", "/api/v1/schedules/mended/runs", mill.tokens["red-reader"]).document["items"]
    assert [(take["take"], take["state"], take["dataset"]) for take in run["earlier"]] == [(1, "refused", "red/mended")]


def test_an_earlier_build_is_led_to_and_words_are_text(mill: MillServer, mended: NightScene) -> None:
    run = mended.run(DATE)
    build, home = "0123456789abcdef0123", mill.service.home
    takes = tuple(
        EarlierTake(
            take=number,
            origin="hand",
            state="failed",
            reason=f"{EVIL} {home}/places/red/x {home}/root/y",
            dataset=dataset,
            build=build,
            job="x",
            created=DATE,
            ended=DATE,
        )
        for number, dataset in enumerate((run.dataset, run.dataset.replace("/red/", "/blue/")), 1)
    )
    update_run(mended.root, "mended", DATE, lambda now: now.model_copy(update={"earlier": takes}))
    shown = run_of(show(mill, "/nights/mended"))
    update_run(mended.root, "mended", DATE, lambda now: now.model_copy(update={"earlier": run.earlier}))
    assert "2 earlier runs of this date" in shown
    assert shown.count(f'<a href="/datasets/red/mended/builds/{build}">') == 1  # the other is at no place of the tenant
    assert EVIL not in shown
    assert str(home) not in shown
    assert "blue" not in shown


def test_a_name_that_changed_hands_shows_and_starts_nothing_of_the_tenant_before(mill: MillServer) -> None:
    scene = NightScene(mill, "handed-over")
    scene.declare(images=5000)
    theirs = scene.night(DATE)
    assert theirs.state == "refused"
    latest = open_store(f"{mill.service.home}/places/red/handed-over").get("latest.json")
    assert mill.web.ask("DELETE", "/api/v1/schedules/handed-over", mill.tokens["red-operator"]).status == 204
    job = {"channel": "blue-line", "count": 30, "destination": "blue", "name": "own", "shard_size": 30, "batch": 16}
    body = {"cron": "0 4 * * *", "job": job}
    key = mill.tokens["blue-operator"]
    assert mill.web.ask("PUT", "/api/v1/schedules/handed-over", key, body).status == 200
    assert mill.web.ask("GET", "/api/v1/schedules/handed-over/runs", key).document["items"] == []
    started = mill.web.ask("POST", "/api/v1/schedules/handed-over/runs", key, {"date": DATE.isoformat()})
    assert started.status == 202, started.body
    scene.finish()
    run = scene.run(DATE)
    assert run.spec is not None
    assert (run.tenant, run.spec.order.name, run.earlier) == ("blue", "own", ())
    assert open_store(f"{mill.service.home}/places/red/handed-over").get("latest.json") == latest
