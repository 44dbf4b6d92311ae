"""The page of a schedule shows its whole text, and lets an operator change it: a refused night is put right there."""

from __future__ import annotations

from html import unescape

import pytest
import yaml

from generator.errors import SpecError
from generator.spec.canonical import validate
from tests.support.mill_server import MillServer, page, send, show
from tests.support.night_scene import NightScene, last_dates
from workers.notifications.config import Notifications
from workers.schedules.store import StoredSchedule, read_stored, update_stored

(DATE,) = last_dates(1)
FORM = "/nights/strict/change"


@pytest.fixture
def scene(mill: MillServer) -> NightScene:
    scene = NightScene(mill, "strict")
    scene.declare(images=500)
    return scene


def stored_of(scene: NightScene) -> StoredSchedule:
    found = read_stored(scene.root, scene.name)
    assert found is not None
    return found


def text_of(mill: MillServer) -> str:
    answer = page(mill, FORM)
    assert answer.status == 200, answer.body
    return unescape(answer.body.decode().partition("required>")[2].partition("</textarea>")[0])


def test_a_refused_night_is_put_right_from_the_page_alone(mill: MillServer, scene: NightScene) -> None:
    assert scene.night(DATE).state == "refused"
    shown = page(mill, "/nights/strict").body.decode()
    assert "images: 500" in shown
    assert f'href="{FORM}"' in shown
    document = yaml.safe_load(text_of(mill))
    assert document["gates"]["images"] == 500
    document["gates"]["images"] = 20
    answer = send(mill, FORM, text=yaml.safe_dump(document))
    assert (answer.status, answer.headers["location"]) == (303, "/nights/strict?changed=true")
    assert "The schedule was changed." in show(mill, answer.headers["location"])
    assert "The schedule was changed." not in show(mill, "/nights/strict")
    assert stored_of(scene).schedule.gates is not None
    answer = send(mill, "/nights/strict/run", date=DATE.isoformat())
    assert answer.status == 303, answer.body
    scene.finish()
    assert scene.run(DATE).state == "promoted"


def test_a_text_that_is_not_changed_changes_nothing(mill: MillServer, scene: NightScene) -> None:
    before = stored_of(scene)
    assert send(mill, FORM, text=text_of(mill)).status == 303
    assert stored_of(scene).schedule == before.schedule


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cron: [", "the form"),
        ("cron: every day\njob: {}", "job.destination"),
        ("gates: {imagess: 3}", "job"),
        ("", "the form"),
    ],
    ids=["no YAML", "no destination", "no job", "empty"],
)
def test_a_mistake_is_said_and_the_text_stays(mill: MillServer, scene: NightScene, text: str, said: str) -> None:
    before = stored_of(scene)
    answer = send(mill, FORM, text=text or " ")
    assert answer.status in (400, 422), answer.body
    shown = unescape(answer.body.decode())
    assert "Nothing was changed: " in shown
    assert said in shown.partition("Nothing was changed: ")[2].partition("</p>")[0]
    assert text in shown
    assert stored_of(scene) == before


def test_names_are_text(mill: MillServer, scene: NightScene) -> None:
    answer = send(mill, FORM, text="</textarea><script>alert(1)</script>")
    assert "<script>alert(1)" not in answer.body.decode()


def test_it_is_for_operators_of_the_tenant(mill: MillServer, scene: NightScene) -> None:
    text = text_of(mill)
    assert page(mill, FORM, "red-reader").status == 403
    assert page(mill, FORM, "red-submitter").status == 403
    assert page(mill, FORM, "green-operator").status == 404
    assert send(mill, FORM, "red-submitter", text=text).status == 403
    assert send(mill, FORM, "green-operator", text=text).status == 404
    assert send(mill, FORM, csrf=False, text=text).status == 403
    assert "Change the schedule" not in page(mill, "/nights/strict", "red-reader").body.decode()


def test_webhooks_are_not_shown_and_stay(mill: MillServer, scene: NightScene) -> None:
    hooks = validate(
        Notifications,
        {"webhooks": [{"url": "https://hooks.example.org/hidden", "secret": "key", "events": ["refused"]}]},
        field="",
        error=SpecError,
    )
    update_stored(
        scene.root,
        scene.name,
        lambda stored: (
            stored
            and stored.model_copy(update={"schedule": stored.schedule.model_copy(update={"notifications": hooks})})
        ),
    )
    text = text_of(mill)
    assert "hidden" not in text
    assert "notifications" not in text
    answer = send(mill, FORM, text=text)
    if answer.status != 303:  # the server has no list of allowed hosts: it says so, and the webhooks stay
        assert "LATENTMILL_ALLOWED_WEBHOOKS" in answer.body.decode()
    assert stored_of(scene).schedule.notifications == hooks
