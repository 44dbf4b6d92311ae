"""The form that chooses two builds: those of the dataset and of the tenant's other datasets, and no others."""

from __future__ import annotations

import re

import pytest

from generator.datasets.promotion import promote
from generator.store import open_store
from tests.support.mill_server import MillServer, page
from tests.support.page_visits import Markup, Visitor

ADDRESS = "/datasets/red/tiny/compare"


@pytest.fixture(scope="module")
def builds(mill: MillServer) -> dict[str, list[str]]:
    """The builds of two datasets, the newest first."""
    place, found = (
        f"{mill.service.home}/places/red",
        {"tiny": [mill.status.url.rpartition("/")[2]], "second": list[str]()},
    )
    for name, seed in (("tiny", 5), ("second", 6), ("second", 7)):
        status = mill.service.submit(name, destination=place, tenant="red", count=20, shard_size=20, seed=seed)
        mill.service.serve(2)
        found[name].insert(0, status.url.rpartition("/")[2])
    unfinished = mill.service.submit("second", destination=place, tenant="red", count=20, shard_size=20, seed=8)
    mill.service.client.cancel(unfinished.job)
    promote(open_store(f"{place}/second"), found["second"][1], logical_date=None, by="a test")
    return found


def choices(shown: Markup) -> dict[str, dict[str, bool]]:
    """For each list its values, and which of them is chosen."""
    found, name = dict[str, dict[str, bool]](), ""
    for tag, attributes in shown.found:
        if tag == "select":
            name = attributes["name"]
            found[name] = {}
        elif tag == "option":
            found[name][attributes["value"]] = "selected" in attributes
    return found


def test_builds_of_the_dataset_are_offered(mill: MillServer, visitor: Visitor, builds: dict[str, list[str]]) -> None:
    shown = visitor.page(f"{ADDRESS}?second={builds['tiny'][1]}")
    assert choices(shown) == {
        "first": {builds["tiny"][0]: True, builds["tiny"][1]: False},
        "other": {"red/tiny": True, "red/second": False},
        "second": {builds["tiny"][0]: False, builds["tiny"][1]: True},
    }
    unasked = choices(visitor.page(ADDRESS))
    assert [name for name, chosen in unasked["first"].items() if chosen] == [builds["tiny"][0]]
    assert [name for name, chosen in unasked["second"].items() if chosen] == [builds["tiny"][1]]
    assert "blue" not in shown.text
    assert not [each for each in shown.named("input") if each.get("type") != "hidden"]


def test_another_dataset_of_the_tenant_can_be_chosen(
    mill: MillServer, visitor: Visitor, builds: dict[str, list[str]]
) -> None:
    first, (newest, promoted) = builds["tiny"][0], builds["second"]
    for query in ("&choose=true", f"&second={builds['tiny'][1]}"):  # the second: without scripts, and a list of before
        shown = visitor.page(f"{ADDRESS}?first={first}&other=red/second{query}")
        found = choices(shown)
        assert list(found["second"]) == [f"red/second/{newest}", f"red/second/{promoted}"]
        assert [name for name, chosen in found["other"].items() if chosen] == ["red/second"]
        assert re.search(rf"{promoted}, what readers get", shown.text)
    compared = visitor.get(f"{ADDRESS}?first={first}&other=red/second&second=red/second/{newest}").body.decode()
    assert "Two builds" in compared or "gathered" in compared
    typed = visitor.page(f"{ADDRESS}?choose=true&first={'0' * 20}&second=red/second/{'1' * 20}")
    assert choices(typed)["first"]["0" * 20]
    assert choices(typed)["second"][f"red/second/{'1' * 20}"]


def test_nothing_of_others_can_be_listed(mill: MillServer) -> None:
    place = f"{mill.service.home}/places/blue"
    theirs = mill.service.submit("own", destination=place, tenant="blue", count=20, shard_size=20, seed=99)
    mill.service.serve(2)
    build = theirs.url.rpartition("/")[2].encode()
    for other in ("blue/own", "../blue/own", "red/../blue/own", "/etc", "red/none/deeper", "s3://blue/own"):
        answer = page(mill, f"{ADDRESS}?choose=true&other={other}")
        assert build not in answer.body, other
        assert str(mill.service.home).encode() not in answer.body
    assert page(mill, ADDRESS, "blue-operator").status == 403
