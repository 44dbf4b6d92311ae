"""The form for new jobs: fields and text state the same job, mistakes stand at their fields, jobs are cloned."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from generator.drafts import parse_mapping
from generator.models.bundle import push
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.mill_server import MillServer, mill_server
from tests.support.page_visits import CLASSES, EVIL, Markup, Visitor, kept_bundle
from tests.support.servers import RedisServer
from workers.server.pages.form_answers import answers_of, draft_of, text_of
from workers.server.pages.form_fields import NOT_ASKED, OF_THEIR_OWN, all_fields
from workers.server.specs import DraftBody

MANY = tuple(f"class {number}" for number in range(80))


def filled(page: Markup) -> dict[str, str]:
    """What a browser would send of the form with fields."""
    values, choices = dict[str, str](), ""
    for tag, attributes in page.found:
        name = attributes.get("name", "")
        if tag == "textarea" and attributes.get("id") == "text":
            break
        if tag == "select":
            choices = name
        elif tag == "option" and ("selected" in attributes or choices not in values):
            values[choices] = attributes.get("value", "")
        elif tag == "input" and name and (attributes.get("type") != "radio" or "checked" in attributes):
            values[name] = attributes.get("value", "")
    return values | {"by": "fields"}


def text_in(page_body: bytes) -> dict[str, Any]:
    import html

    found = re.search(r'<textarea id="text"[^>]*>(.*?)</textarea>', page_body.decode(), re.DOTALL)
    assert found
    return parse_mapping(html.unescape(found[1]).encode(), where="the page")


def test_every_field_of_a_draft_is_in_the_form() -> None:
    names = {field.name.partition(".")[0] for field in all_fields()}
    assert names | {*OF_THEIR_OWN, *NOT_ASKED} == set(DraftBody.model_fields)
    assert len({field.id for field in all_fields()}) == len(all_fields())


def test_limits_and_defaults_are_those_of_the_models() -> None:
    fields = {field.name: field for field in all_fields()}
    assert fields["image.quality"].allowed == "a whole number from 1 to 100"
    assert fields["image.quality"].empty == "95"
    assert fields["temperature"].allowed == "a number above 0 and at most 2"
    assert fields["label_floor"].allowed == "auto, none, or a number above 0 and below 1"
    assert fields["shard_size"].empty == "1,000"
    assert [value for value, _ in fields["format"].choices] == ["webdataset", "parquet", "mds"]
    assert [value for value, _ in fields["dtype"].choices] == ["float32", "bfloat16", "float16"]


DRAFTS: list[dict[str, Any]] = [
    {"channel": "red-line", "count": 9, "destination": "red", "name": "x"},
    {"bundle": "sha256:" + "1" * 64, "counts": {"dog": 3}, "destination": "red/2026/a", "name": "x", "seed": 5},
    {"channel": "c", "count": 9, "destination": "red", "name": "x", "image": {"format": "jpeg", "quality": 80}},
    {"channel": "c", "count": 9, "destination": "red", "name": "x", "image": "jpeg", "format": "mds"},
    {"channel": "c", "count": 9, "destination": "red", "name": "x", "label_floor": None, "novelty_floor": 0.002},
    {"channel": "c", "count": 9, "destination": "red", "name": "x", "label_floors": {"dog": 0.4, "owl": None}},
    {"channel": "c", "count": 9, "destination": "red", "name": "x", "draw": {"mode": "cluster", "cluster": 1}},
    {
        "channel": "c",
        "count": 9,
        "destination": "red",
        "name": "x",
        "draw": {"mode": "between", "start": {"reference": 3}, "end": {"reference": 7}, "distance": 0.25},
    },
    {
        "channel": "c",
        "count": 9,
        "destination": "red",
        "name": "x",
        "latents": True,
        "page": False,
        "sidecars": ["dali"],
        "published": None,
        "license": "cc-by-4.0",
        "priority": -3,
        "batch": 16,
        "creator": {"name": "A & B", "kind": "person"},
        "citation": "two\nlines",
        "recipe_version": 1,
    },
    {"channel": "c", "count": 9, "destination": "red", "name": "x", "draw": {"mode": "around", "code": [1.0, 2.0]}},
    {"channel": "c", "counts": {"unknown": 3}, "destination": "elsewhere/x", "name": "x", "colour": ["red"]},
]


@pytest.mark.parametrize("number", range(len(DRAFTS)))
def test_a_draft_goes_through_the_form_unchanged(number: int) -> None:
    draft = DRAFTS[number]
    answers = answers_of(draft, CLASSES, ["red"])
    assert all(isinstance(value, str) for value in answers.values())
    assert draft_of(answers, CLASSES) == draft
    assert parse_mapping(text_of(draft).encode(), where="x") == draft


def test_the_form_begins_with_a_channel_and_is_submitted(mill: MillServer, visitor: Visitor) -> None:
    page = visitor.page("/jobs/new")
    values = filled(page)
    assert (values["bundle"], values["place"], values["count"]) == ("channel:red-line", "red", "1000")
    labels = {each["for"] for each in page.named("label") if "for" in each}
    named = [each for tag in ("input", "select", "textarea") for each in page.named(tag)]
    for each in named:
        visible = each.get("type") not in ("hidden", "radio")
        assert not visible or each.get("id") in labels or each.get("aria-label"), each
    sent = values | {"count": "30", "name": "by-fields", "shard_size": "30", "batch": "16", "folder": "deeper/down"}
    answer = visitor.send("/jobs/new", **sent)
    assert answer.status == 303, answer.body
    status = mill.service.client.status(answer.headers["location"].rpartition("/")[2])
    assert (status.samples, status.tenant) == (30, "red")
    assert "/places/red/deeper/down/by-fields/" in status.url


def test_mistakes_stand_at_their_fields_and_what_was_written_stays(mill: MillServer, visitor: Visitor) -> None:
    values = filled(visitor.page("/jobs/new"))
    wrong = {"count": "many", "name": "Not A Name", "temperature": "5", "image.quality": "500", "seed": "1e3"}
    answer = visitor.send("/jobs/new", **(values | wrong | {"image.format": "jpeg"}))
    assert answer.status == 422
    page = Markup(answer)
    for name, text in (wrong | {}).items():
        field = page.by_id("f-" + name.replace(".", "-"))
        assert field["value"] == text
        if name != "temperature":  # it is checked with the bundle, once the rest is right
            assert field["aria-invalid"] == "true"
            assert page.by_id(field["aria-describedby"].split()[0])["class"] == "wrong"
    assert "Expected a whole number from 1 to 100, got 500." in page.text
    assert "got 'many'" in page.text
    assert "Nothing was submitted." in page.text
    links = {each["href"] for each in page.named("a")}
    assert {"#f-count", "#f-name", "#f-image-quality", "#f-seed"} <= links
    assert text_in(answer.body)["count"] == "many"
    again = values | {"name": "right", "temperature": "5"}
    later = Markup(visitor.send("/jobs/new", **again))
    assert "Expected a number above 0 and at most 2, got 5.0." in later.text
    assert later.by_id("f-temperature")["aria-invalid"] == "true"


@pytest.mark.parametrize(
    ("changes", "field", "status"),
    [
        ({"count": ""}, "count", 422),
        ({"bundle": "channel:blue-line"}, "bundle", 404),
        ({"bundle": "sha256:" + "0" * 64}, "bundle", 404),
        ({"bundle": "../../etc"}, "bundle", 422),
        ({"place": "/etc"}, "place", 422),
        ({"place": "blue"}, "place", 403),
        ({"folder": "../up"}, "place", 422),
        ({"name": EVIL}, "name", 422),
        ({"draw.mode": "cluster", "draw.cluster": "77"}, "draw.cluster", 422),
        ({"draw.mode": "cluster"}, "draw.cluster", 422),
        ({"draw.mode": "around", "draw.reference": "3"}, "draw.distance", 422),
        ({"draw.mode": "around", "draw.reference": "9999", "draw.distance": "0.5"}, "draw.reference", 422),
        ({"draw.mode": "between", "draw.reference": "3"}, "draw.end", 422),
        ({"label_floor": "0.5"}, "label_floor", 422),  # the bundle has no judge
        ({"label_floor": "abc"}, "label_floor", 422),
        ({"spread": "classes", "count-of-1": "-3"}, "count-of-1", 422),
        ({"floor-of-2": "7"}, "floor-of-2", 422),
        ({"creator.url": "javascript:alert(1)", "creator.name": "x"}, "creator.url", 422),
        ({"published": "yesterday"}, "published", 422),
        ({"sidecars": "dali", "format": "mds"}, "sidecars", 422),
    ],
    ids=lambda value: "",
)
def test_each_mistake_has_its_field(
    mill: MillServer, visitor: Visitor, changes: dict[str, str], field: str, status: int
) -> None:
    answer = visitor.send("/jobs/new", **(filled(visitor.page("/jobs/new")) | changes))
    assert answer.status == status
    page = Markup(answer)
    assert page.by_id("f-" + field.replace(".", "-"))["aria-invalid"] == "true", page.text
    assert str(mill.service.home) not in page.text
    assert "<script>alert" not in answer.body.decode()


def test_numbers_and_floors_by_class(mill: MillServer, visitor: Visitor) -> None:
    values = filled(visitor.page(f"/jobs/new?bundle={mill.bundle}"))
    assert values["classes_of"] == mill.bundle
    wanted = {"spread": "classes", "count-of-0": "4", "count-of-2": "5", "update": "1"}
    shown = visitor.send("/jobs/new", **(values | wanted))
    assert shown.status == 200
    assert text_in(shown.body)["counts"] == {EVIL: 4, "owl": 5}
    del wanted["update"]
    answer = visitor.send("/jobs/new", **(values | wanted | {"name": "by-class", "batch": "16"}))
    assert answer.status == 303, answer.body
    assert mill.service.client.status(answer.headers["location"].rpartition("/")[2]).samples == 9


def test_another_bundle_has_other_classes(mill: MillServer, visitor: Visitor, tmp_path: Path) -> None:
    root = open_store(mill.service.settings.root)
    other = push(open_store(str(tiny_bundle(tmp_path / "other", classes=("dog", "fox")))), root)
    root.put(f"tenants/red/bundles/{other.removeprefix('sha256:')}.json", b"{}")
    values = filled(visitor.page(f"/jobs/new?bundle={mill.bundle}"))
    sent = values | {"spread": "classes", "count-of-1": "7", "bundle": other}
    part = visitor.send("/jobs/new/text", **sent)
    assert part.status == 200
    assert 'id="by-class" hx-swap-oob="true"' in part.body.decode()
    assert b"fox" in part.body
    assert text_in(part.body)["counts"] == {"dog": 7}  # by name, though its number in the page is another one
    assert b"by-class" not in visitor.send("/jobs/new/text", **values).body
    lost = Markup(visitor.send("/jobs/new", **(sent | {"count-of-2": "4", "update": "1"})))
    assert "This bundle has other classes; left out: owl." in lost.text


def test_many_classes_fit_into_a_form(mill: MillServer, visitor: Visitor, tmp_path: Path) -> None:
    root = open_store(mill.service.settings.root)
    many = push(open_store(str(tiny_bundle(tmp_path / "many", classes=MANY))), root)
    root.put(f"tenants/red/bundles/{many.removeprefix('sha256:')}.json", b"{}")
    values = filled(visitor.page(f"/jobs/new?bundle={many}"))
    assert len(values) > 180
    numbers = {f"count-of-{number}": "1" for number in range(len(MANY))}
    answer = visitor.send("/jobs/new", **(values | numbers | {"spread": "classes", "name": "many", "batch": "16"}))
    assert answer.status == 303, answer.body
    assert mill.service.client.status(answer.headers["location"].rpartition("/")[2]).samples == len(MANY)


def test_text_fills_the_fields_and_keeps_what_they_cannot_show(visitor: Visitor) -> None:
    draft = {
        "channel": "red-line",
        "count": 30,
        "destination": "red/a",
        "name": "texty",
        "seed": 4,
        "draw": {"mode": "around", "code": [0.1, 0.2, 0.3, 0.4], "distance": 0.5},
    }
    answer = visitor.send("/jobs/new", text=yaml.safe_dump(draft), update="1")
    assert answer.status == 200
    page = Markup(answer)
    values = filled(page)
    assert (values["seed"], values["folder"], values["draw.mode"]) == ("4", "a", "kept")
    by_fields = visitor.send("/jobs/new", **(values | {"seed": "5", "update": "1"}))
    assert text_in(by_fields.body) == draft | {"seed": 5}
    dropped = visitor.send("/jobs/new", **(values | {"draw.mode": "distribution", "update": "1"}))
    assert "draw" not in text_in(dropped.body)
    wrong = Markup(visitor.send("/jobs/new", text=yaml.safe_dump(draft | {"seed": "x", "colour": "red"})))
    assert wrong.by_id("f-seed")["aria-invalid"] == "true"
    assert "unknown field 'colour'" in wrong.text


def test_a_job_is_cloned_by_its_link(mill: MillServer, visitor: Visitor) -> None:
    link = f"/jobs/new?job={mill.status.job}"
    assert link in {each["href"] for each in visitor.page(f"/jobs/{mill.status.job}").named("a")}
    answer = visitor.get(link)
    assert text_in(answer.body) == {
        "bundle": mill.bundle,
        "count": 60,
        "destination": "red",
        "name": "tiny",
        "shard_size": 30,
        "batch": 16,
    }
    again = visitor.send("/jobs/new", **filled(Markup(answer)))
    assert again.headers["location"] == f"/jobs/{mill.status.job}"  # the same spec is the same job
    other = visitor.send("/jobs/new", **(filled(Markup(answer)) | {"seed": "9", "name": "cloned"}))
    assert other.status == 303
    assert other.headers["location"] != again.headers["location"]
    assert Visitor(mill, "blue-operator").get(link).status == 404


def test_a_job_spec_in_the_text_is_the_same_job(mill: MillServer, visitor: Visitor) -> None:
    spec, _ = mill.service.client._service.resolve(mill.service.spec(label_floor=None))  # type: ignore[attr-defined]
    document = spec.model_dump(mode="json")
    document["order"]["destination"] = "red"
    shown = visitor.send("/jobs/new", text=yaml.safe_dump(document), update="1")
    assert shown.status == 200
    assert filled(Markup(shown))["shard_size"] == "30"
    document["recipe"]["seed"] = -1
    wrong = visitor.send("/jobs/new", text=yaml.safe_dump(document))
    assert wrong.status == 422
    assert b"recipe.seed" in wrong.body


def test_the_form_shows_the_first_images_and_stores_nothing(mill: MillServer, visitor: Visitor) -> None:
    values = filled(visitor.page("/jobs/new")) | {"count": "30", "name": "seen", "look": "1"}
    assert visitor.send("/jobs/new", **values).status == 503
    with mill.service.answering():
        answer = visitor.send("/jobs/new", **values)
    assert answer.status == 200, answer.body
    page = Markup(answer)
    assert len([each for each in page.named("img") if each["src"].startswith("data:image/png;base64,")]) == 24
    assert filled(page)["name"] == "seen"
    assert not (mill.service.home / "places" / "red" / "seen").exists()


def test_readers_have_no_form(mill: MillServer, visitor: Visitor) -> None:
    reader, values = Visitor(mill, "red-reader"), filled(visitor.page("/jobs/new"))
    assert reader.get("/jobs/new").status == 403
    for path in ("/jobs/new", "/jobs/new/text"):
        assert reader.send(path, **values).status == 403
        assert visitor.send(path, **(values | {"csrf": "x"})).status == 403
    assert "New job like this" not in reader.page(f"/jobs/{mill.status.job}").text


def test_a_tenant_without_bundles_is_told(mill: MillServer) -> None:
    page = Visitor(mill, "green-operator").page("/jobs/new")
    assert "none: push or upload a bundle first" in page.text


def test_the_form_is_there_while_redis_is_away(redis_server: RedisServer, tmp_path: Path) -> None:
    with mill_server(redis_server, kept_bundle(tmp_path / "kept"), tmp_path) as mill:
        visitor = Visitor(mill)
        values = filled(visitor.page("/jobs/new"))
        redis_server.kill()
        assert visitor.get("/jobs/new").status == 200
        answer = visitor.send("/jobs/new", **values)
        assert (answer.status, b"Redis" in answer.body) == (503, True)
        assert b"redis://" not in answer.body
        assert filled(Markup(answer))["count"] == "1000"
