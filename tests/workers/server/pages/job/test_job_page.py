"""The page of a job: its shards as they are, its newest images, its cost and its faults; who may see and decide."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import pytest

from generator.datasets.builds import resolve_build
from generator.datasets.promotion import promote, read_state
from generator.errors import DatasetError, StoreUnavailable
from generator.store import open_store
from tests.support.http_server import Answer
from tests.support.mill_server import MillServer, page, send
from workers.jobs.status import JobStatus

EVIL = "<script>alert(1)</script>"


def submit(mill: MillServer, name: str, shards: int = 5, tenant: str = "red") -> JobStatus:
    place = f"{mill.service.home}/places/{tenant}"
    return mill.service.submit(name, destination=place, tenant=tenant, count=20 * shards, shard_size=20)


def ask(mill: MillServer, path: str, key: str = "red-operator") -> Answer:
    answer = page(mill, path, key)
    assert b"Traceback" not in answer.body
    assert EVIL.encode() not in answer.body
    assert str(mill.service.home).encode() not in answer.body
    return answer


def show(mill: MillServer, path: str, key: str = "red-operator") -> str:
    answer = ask(mill, path, key)
    assert answer.status == 200, answer.body
    return answer.body.decode()


def images_of(text: str) -> dict[str, int]:
    """The number of images by shard, in the order of the page."""
    figures = re.findall(r"<figcaption>shard (\d+)</figcaption>(.*?)</figure>", text, re.DOTALL)
    return {shard: figure.count("data:image/png;base64,") for shard, figure in figures}


def test_a_job_is_followed_from_its_first_shard_to_its_end(mill: MillServer) -> None:
    job, ledger = submit(mill, "followed").job, mill.service.ticket_handler.pool.ledger
    text = show(mill, f"/jobs/{job}")
    assert "5 shards: 0 finished, 5 to come." in text
    assert images_of(text) == {}
    mill.service.serve(2)
    claim = ledger.claim(60.0)
    assert claim is not None
    ledger.renew(claim, 60.0, 7)
    mill.web.app.state.context.costs._held.clear()  # as after three seconds
    text = show(mill, f"/jobs/{job}", "red-reader")
    assert "5 shards: 2 finished, 1 being made, 2 to come." in text
    assert "shard 2: being made, 7 images so far" in text
    assert "47 of 100 images, 2 of 5 shards" in text
    assert images_of(text) == {"1": 6, "0": 6}
    assert f'hx-get="/jobs/{job}/pictures?seen=0.1" hx-trigger="every 3s"' in text
    assert "of worker time in 1 process" in text
    assert "Where the time goes" in text
    assert ask(mill, f"/jobs/{job}/pictures?seen=0.1").status == 204
    ledger.release(claim)
    mill.service.serve(1)
    answer = ask(mill, f"/jobs/{job}/pictures?seen=0.1")
    assert (answer.status, list(images_of(answer.body.decode()))) == (
        200,
        ["3", "1", "0"],
    )  # shards are begun in ascending order
    mill.service.serve(3)
    answer = ask(mill, f"/jobs/{job}?part=true")
    assert answer.status == 286
    assert b'hx-swap-oob="true"' in answer.body
    final = ask(mill, f"/jobs/{job}/pictures?seen=2.3.4")
    assert list(images_of(final.body.decode())) == ["4", "3", "2"]
    assert b"hx-get" not in final.body  # it asks no more
    assert b"/samples/" in final.body  # and its images lead to their samples
    assert "hx-get" not in show(mill, f"/jobs/{job}").partition("<main")[2]


def test_faults_are_told_shard_by_shard(mill: MillServer) -> None:
    job, ledger = submit(mill, "faulty").job, mill.service.ticket_handler.pool.ledger
    claim = ledger.claim(60.0)
    assert claim is not None
    ledger.postpone(claim, base=60.0, cap=60.0)
    ledger.record_error(job, f"shard 0, fault 1: {EVIL} in {mill.service.home}/places/red/x")
    text = show(mill, f"/jobs/{job}")
    assert "shard 0: 1 attempt failed; attempt 2 of 5 follows" in text
    assert "The last error: shard 0, fault 1: &lt;script&gt;alert(1)&lt;/script&gt; in red/x" in text
    assert "5 shards: 0 finished, 1 waiting, 4 to come." in text
    mill.service.client.cancel(job)


def test_a_failed_job_shows_what_is_missing_and_why(mill: MillServer) -> None:
    job, handler = submit(mill, "failed").job, mill.service.ticket_handler
    mill.service.serve(2)
    produce = handler.produce

    def refuse(*_: object, **__: object) -> None:
        raise StoreUnavailable("store", "an answer", f"none: {EVIL}")

    handler.produce = refuse  # type: ignore[assignment]
    try:
        for _ in range(60):
            mill.service.serve(1)
            if mill.service.client.status(job).ended:
                break
    finally:
        handler.produce = produce
    assert mill.service.client.status(job).state == "failed"
    text = show(mill, f"/jobs/{job}", "red-reader")
    assert "5 shards: 2 finished, 3 given up." in text, text
    assert "shard 2, after 5 failed attempts: " in text
    assert images_of(text) == {"1": 6, "0": 6}
    assert send(mill, f"/jobs/{job}/resume").status == 303
    mill.service.serve(5)
    assert "committed" in show(mill, f"/jobs/{job}")


def test_a_cancelled_job_shows_the_shards_that_it_has(mill: MillServer) -> None:
    job = submit(mill, "cancelled").job
    mill.service.serve(1)
    mill.service.client.cancel(job)
    text = show(mill, f"/jobs/{job}")
    assert "5 shards: 1 finished, 4 to come." in text
    assert images_of(text) == {"0": 6}


def test_a_job_that_redis_has_lost_is_shown_from_the_store(mill: MillServer) -> None:
    status = submit(mill, "lost")
    mill.service.serve(2)
    for key in mill.service.redis.keys(f"*:{status.job}"):
        mill.service.redis.delete(key)
    mill.service.redis.zrem(mill.service.key("jobs"), status.job)
    mill.service.redis.zrem(mill.service.key("queue:red"), status.job)
    text = show(mill, f"/jobs/{status.job}")
    assert "5 shards: 2 finished, 3 to come." in text
    assert images_of(text) == {"1": 6, "0": 6}
    mill.service.client.cancel(status.job)


def test_damaged_and_foreign_shards_have_no_images_and_do_not_break_the_page(mill: MillServer) -> None:
    status = submit(mill, "damaged")
    mill.service.serve(2)
    store = open_store(status.url)
    for info in store.list("shards/"):
        if "000001" in info.key:
            store.put(info.key, bytes(info.size))
    assert images_of(show(mill, f"/jobs/{status.job}")) == {"0": 6}
    mill.service.client.cancel(status.job)
    elsewhere = mill.service.submit("elsewhere", tenant="red", count=40, shard_size=20)  # below no place of the tenant
    mill.service.serve(1)
    assert images_of(show(mill, f"/jobs/{elsewhere.job}")) == {}
    mill.service.client.cancel(elsewhere.job)


def test_other_tenants_see_nothing_of_a_job(mill: MillServer) -> None:
    job = submit(mill, "private").job
    mill.service.serve(1)
    for path in (f"/jobs/{job}", f"/jobs/{job}?part=true", f"/jobs/{job}/pictures", f"/jobs/{job}/pictures?seen=0"):
        assert ask(mill, path, "blue-operator").status == 404
    assert send(mill, f"/jobs/{job}/cancel", "blue-operator").status == 404
    assert "<form" not in show(mill, f"/jobs/{job}", "red-reader").partition("<main")[2]
    for seen in ("x" * 101, EVIL * 10):
        assert ask(mill, f"/jobs/{job}/pictures?seen={quote(seen)}").status == 422
    mill.service.client.cancel(job)


def test_a_committed_build_is_promoted_on_the_page_of_its_job(mill: MillServer) -> None:
    first = submit(mill, "chosen", 1)
    mill.service.serve(2)
    text = show(mill, f"/jobs/{first.job}")
    assert "Readers of red/chosen get this build, the only one." in text
    assert "/promote" in text  # so that they get it when there are others
    store = open_store(f"{mill.service.home}/places/red/chosen")
    promote(store, first.url.rpartition("/")[2], logical_date=None, by="a test")
    place = f"{mill.service.home}/places/red"
    second = mill.service.submit("chosen", destination=place, tenant="red", count=20, shard_size=20, seed=9)
    assert "What readers get" not in show(mill, f"/jobs/{second.job}")
    mill.service.serve(2)
    build = second.url.rpartition("/")[2]
    address = f"/datasets/red/chosen/builds/{build}/promote"
    for role in ("reader", "submitter"):
        text = show(mill, f"/jobs/{second.job}", f"red-{role}")
        assert f"get build <code>{first.url.rpartition('/')[2]}</code>" in text
        assert "Compare the two" in text
        assert address not in text
    assert f'action="{address}"' in show(mill, f"/jobs/{second.job}")
    assert send(mill, address).status == 422
    assert send(mill, address, csrf=False, confirm="true").status == 403
    assert send(mill, address, confirm="true").status == 303
    state = read_state(store)
    assert state is not None
    assert state.build == build
    assert "Readers of red/chosen get this build." in show(mill, f"/jobs/{second.job}")


def test_readers_must_name_a_build_where_none_of_two_is_promoted(mill: MillServer) -> None:
    first = submit(mill, "doubled", 1)
    mill.service.serve(2)
    warning = "red/doubled already has a build, and none is promoted"
    assert warning in show(mill, f"/jobs/new?job={first.job}")
    draft = {"by": "fields", "place": "red", "name": "doubled", "count": "20"}
    assert warning in send(mill, "/jobs/new/text", **draft).body.decode()
    assert "already has" not in send(mill, "/jobs/new/text", **draft | {"name": "new"}).body.decode()
    assert "already has" not in send(mill, "/jobs/new/text", **draft | {"place": "../blue"}).body.decode()
    place = f"{mill.service.home}/places/red"
    second = mill.service.submit("doubled", destination=place, tenant="red", count=20, shard_size=20, seed=9)
    text = show(mill, f"/jobs/{first.job}")
    assert "Readers of red/doubled get this build, the only one." in text  # the other is not finished
    mill.service.serve(2)
    for job in (first.job, second.job):
        text = re.sub("<[^>]*>", "", show(mill, f"/jobs/{job}"))
        assert "Readers of red/doubled must name a build: it has 2 builds and none is promoted. Promote one." in text
    with pytest.raises(DatasetError, match="one committed build"):
        resolve_build(f"{place}/doubled")
    promote(open_store(f"{place}/doubled"), first.url.rpartition("/")[2], logical_date=None, by="a test")
    assert "must name" not in show(mill, f"/jobs/{second.job}")
    assert "already has" not in show(mill, f"/jobs/new?job={first.job}")


def test_a_list_of_jobs_leads_to_each(mill: MillServer) -> None:
    assert f'href="/jobs/{mill.status.job}"' in show(mill, "/jobs", "red-reader")


def stored(text: str) -> str:
    found = re.search(r"<dt>Stored</dt><dd>(.*?)</dd>", text)
    assert found, text
    return found[1]


def test_the_last_part_of_a_followed_job_has_the_costs_of_its_end(mill: MillServer) -> None:
    job = submit(mill, "counted", 2).job
    mill.service.serve(1)
    before = stored(show(mill, f"/jobs/{job}"))
    mill.service.serve(2)
    last = ask(mill, f"/jobs/{job}?part=true")
    assert last.status == 286
    mill.web.app.state.context.costs._held.clear()
    assert stored(last.body.decode()) == stored(show(mill, f"/jobs/{job}")) != before


def test_a_job_of_one_shard_has_one_shard(mill: MillServer) -> None:
    job = submit(mill, "single", 1).job
    text = show(mill, f"/jobs/{job}")
    assert "1 shard: 0 finished, 1 to come." in text
    assert "0 of 1 shard</p>" in text
    mill.service.client.cancel(job)


def test_pages_that_follow_load_what_says_that_they_do_not(mill: MillServer) -> None:
    for path in ("/jobs", f"/jobs/{mill.status.job}"):
        assert '<script src="/static/updates.js" defer></script>' in show(mill, path)
    answer = mill.web.get("/static/updates.js")
    assert answer.status == 200
    assert b"htmx:responseError" in answer.body


def test_addresses_of_forms_alone_are_no_pages(mill: MillServer) -> None:
    for path in ("/nights/..%2fx", f"/jobs/{quote(EVIL)}", f"/jobs/{mill.status.job}/cancel"):
        assert ask(mill, path).status == 404, path
    assert mill.web.ask("DELETE", f"/jobs/{mill.status.job}").status == 405


def test_costs_are_not_read_anew_for_every_look(mill: MillServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import workers.server.job_costs as job_costs

    reads = list[Path]()
    original = job_costs.read_run_records

    def counted(build: object, **limits: int) -> object:
        reads.append(Path())
        return original(build, **limits)  # type: ignore[arg-type]

    monkeypatch.setattr(job_costs, "read_run_records", counted)
    job = submit(mill, "watched").job
    mill.service.serve(1)
    for _ in range(5):
        show(mill, f"/jobs/{job}?part=true")
    assert len(reads) == 1
    mill.service.client.cancel(job)
