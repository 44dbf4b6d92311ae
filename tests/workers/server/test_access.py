"""Keys, one-time links, roles, rate limits, and the places of tenants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from generator.errors import AccessRefused, SettingsError, SpecError, StoreUnavailable
from generator.store import Store, open_store
from tests.support.servers import KEY_PREFIX, RedisServer
from workers.ledger.tenants import read_tenants
from workers.server.access.keys import KeyRing, add_key, read_key, read_keys, revoke_key
from workers.server.access.links import add_link, use_link
from workers.server.access.rate_limit import RateLimit
from workers.server.access.roles import ROLES, includes
from workers.server.access.tenants import TenantPlaces
from workers.server.access.tokens import csrf_value, is_token_of, key_id_of, new_token, token_digest
from workers.settings import Settings

HOUR = timedelta(hours=1)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_key_is_made_read_and_revoked(store: Store) -> None:
    key, token = add_key(store, "red", "submitter", HOUR, note="for a test")
    assert read_key(store, key.id) == key
    assert (key.tenant, key.role, key.note) == ("red", "submitter", "for a test")
    assert token.encode() not in store.get(f"keys/{key.id}.json")
    assert [each.id for each in read_keys(store)] == [key.id]
    revoked = revoke_key(store, key.id)
    assert revoked.revoked is not None
    assert revoke_key(store, key.id) == revoked
    assert not revoked.is_live(datetime.now(UTC))
    with pytest.raises(SpecError, match="key"):
        revoke_key(store, "0" * 16)
    for wrong in ("", "../x", "0" * 15, "G" * 16, "links/x"):
        with pytest.raises(SpecError, match="16 hexadecimal"):
            read_key(store, wrong)


@pytest.mark.parametrize(
    "fields",
    [{"tenant": "../x"}, {"tenant": ""}, {"role": "root"}, {"life": timedelta(0)}, {"life": timedelta(days=4000)}],
)
def test_a_key_that_cannot_be_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    wanted: dict[str, Any] = {"tenant": "red", "role": "reader", "life": HOUR} | fields
    store = open_store(str(tmp_path))
    with pytest.raises(SpecError):
        add_key(store, **wanted)
    assert not list(store.list())


def test_tokens_have_an_id_and_an_unguessable_part() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len({token for _, token in tokens}) == 100
    for key_id, token in tokens:
        assert key_id_of(token) == key_id
        assert is_token_of(token, token_digest(token))
        assert not is_token_of(token + "x", token_digest(token))
        assert csrf_value(token) not in token
    for text in ("", "lm_", "lm_x_y", f"lm_{'0' * 16}_{'a' * 42}", f" lm_{'0' * 16}_{'a' * 43}", "x" * 10**6):
        assert key_id_of(text) is None


def test_a_ring_reads_a_key_again_after_a_few_seconds(tmp_path: Path) -> None:
    root, clock = open_store(str(tmp_path)), Clock()
    key, token = add_key(root, "red", "reader", HOUR)
    ring = KeyRing(lambda: root, clock)
    assert ring.check(token) == key
    revoke_key(root, key.id)
    assert ring.check(token) == key  # not read again yet
    clock.now += 4.0
    with pytest.raises(AccessRefused, match="revoked"):
        ring.check(token)


def test_a_key_that_cannot_be_looked_up_opens_nothing(tmp_path: Path) -> None:
    root, clock = open_store(str(tmp_path)), Clock()
    token = add_key(root, "red", "reader", HOUR)[1]
    away = False

    def find() -> Store:
        if away:
            raise StoreUnavailable("store", "an answer", "none")
        return root

    ring = KeyRing(find, clock)
    assert ring.check(token)
    away = True
    assert ring.check(token)
    clock.now += 5.0
    with pytest.raises(StoreUnavailable):
        ring.check(token)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"{" * 100_000])
def test_a_damaged_key_opens_nothing(tmp_path: Path, data: bytes) -> None:
    root = open_store(str(tmp_path))
    key, token = add_key(root, "red", "reader", HOUR)
    root.put(f"keys/{key.id}.json", data)
    with pytest.raises(AccessRefused):
        KeyRing(lambda: root).check(token)


def test_a_key_under_the_name_of_another_opens_nothing(tmp_path: Path) -> None:
    root = open_store(str(tmp_path))
    (mine, token), (other, _) = add_key(root, "red", "reader", HOUR), add_key(root, "blue", "operator", HOUR)
    root.put(f"keys/{mine.id}.json", root.get(f"keys/{other.id}.json"))
    with pytest.raises(AccessRefused):
        KeyRing(lambda: root).check(token)


def test_a_link_gives_its_token_once(store: Store) -> None:
    token = new_token()[1]
    code = add_link(store, token, HOUR)
    stored = store.get(next(store.list("keys/links/")).key)
    assert token.encode().hex().encode() not in stored
    assert code.encode() not in stored
    assert use_link(store, code) == token
    for _ in range(2):
        with pytest.raises(AccessRefused):
            use_link(store, code)


def test_roles_include_the_ones_before() -> None:
    assert [[includes(held, needed) for needed in ROLES] for held in ROLES] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_a_rate_is_held_over_time_and_refills() -> None:
    clock = Clock()
    rate = RateLimit(60.0, 5.0, clock)
    assert [rate.take("a") for _ in range(5)] == [0.0] * 5
    assert rate.take("a") == pytest.approx(1.0)
    assert rate.take("b") == 0.0
    clock.now += 1.0
    assert rate.wait("a") == 0.0
    assert rate.take("a") == 0.0
    assert rate.take("a") > 0.0
    clock.now += 3600.0
    assert [rate.take("a") for _ in range(6)].count(0.0) == 5


def places(tmp_path: Path, tenants: dict[str, Any] | None = None, **settings: Any) -> TenantPlaces:
    if tenants is not None:
        (tmp_path / "tenants.yaml").write_text(yaml.safe_dump(tenants))
        settings["tenants_file"] = tmp_path / "tenants.yaml"
    root = str(tmp_path / "root")
    return TenantPlaces(Settings(root=root, **settings), root)


def test_without_a_file_tenants_have_places_of_their_own(tmp_path: Path) -> None:
    found = places(tmp_path)
    assert found.destination("red", "red/x") == f"{(tmp_path / 'root').as_uri()}/datasets/red/x"
    with pytest.raises(AccessRefused):
        found.destination("blue", "red/x")
    assert found.may_use_channel("default", "any")
    assert not found.may_use_channel("red", "any")
    assert found.may_use_any_bundle("default")
    assert not found.may_use_any_bundle("red")


def test_the_file_gives_places_and_channels(tmp_path: Path) -> None:
    found = places(
        tmp_path,
        {
            "default": {"destinations": ["s3://data/{tenant}"], "channels": ["{tenant}-*"]},
            "tenants": {"red": {"destinations": ["s3://data/team-a", "s3://old/archive"], "channels": ["digits"]}},
        },
    )
    assert found.places("blue") == {"blue": "s3://data/blue"}
    assert found.places("red") == {"team-a": "s3://data/team-a", "archive": "s3://old/archive"}
    assert found.destination("red", "archive/2026") == "s3://old/archive/2026"
    assert found.destination("red", "s3://data/team-a/x") == "s3://data/team-a/x"
    for foreign in ("s3://data/team-ab", "s3://data", "s3://data/blue", "blue/x", "s3://data/team-a/../blue"):
        with pytest.raises((AccessRefused, SpecError)):
            found.destination("red", foreign)
    assert found.may_use_channel("blue", "blue-digits")
    assert not found.may_use_channel("blue", "digits")
    assert found.may_use_channel("red", "digits")
    assert not found.may_use_any_bundle("default")
    assert found.name_of("red", "s3://old/archive/x/builds/1") == "archive/x/builds/1"
    assert found.name_of("red", "s3://old/archives") is None
    assert found.dataset("red", "archive/x") == "s3://old/archive/x"
    with pytest.raises(SpecError, match="dataset"):
        found.dataset("red", "archive")


@pytest.mark.parametrize("inside", ["{root}", "{root}/keys", "{root}/open/x", "{root}/..", "{root}/bundles/datasets"])
def test_a_place_that_reaches_the_keys_is_refused(tmp_path: Path, inside: str) -> None:
    url = inside.format(root=tmp_path / "root")
    with pytest.raises(SettingsError, match="destinations"):
        places(tmp_path, {"tenants": {"red": {"destinations": [url]}}})
    with pytest.raises(SettingsError, match="destinations"):
        places(tmp_path, destinations=url)


def test_two_places_of_one_name_are_refused(tmp_path: Path) -> None:
    assert set(places(tmp_path, destinations="s3://data/x, s3://data/y").places("default")) == {"x", "y"}
    with pytest.raises(SettingsError, match="distinct last segments"):
        places(tmp_path, destinations=f"s3://data/x,{tmp_path}/x")


@pytest.mark.parametrize(
    "share",
    [
        {"destinations": ["s3://data/x", "s3://other/x"]},
        {"destinations": []},
        {"destinations": ["ftp://x/y"]},
        {"destinations": ["s3://data/a b"]},
        {"channels": ["../x"]},
        {"channels": "digits"},
    ],
)
def test_a_file_of_tenants_that_cannot_be_is_refused(tmp_path: Path, share: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        places(tmp_path, {"tenants": {"red": share}})


def test_a_slip_in_the_file_does_not_lock_tenants_out(tmp_path: Path) -> None:
    found = places(tmp_path, {"tenants": {"red": {"destinations": ["s3://data/red"]}}})
    (tmp_path / "tenants.yaml").write_text("tenants: [")
    found._read_at -= 60.0
    assert found.places("red") == {"red": "s3://data/red"}
    (tmp_path / "tenants.yaml").write_text("tenants: {red: {destinations: ['s3://data/other']}}")
    found._read_at -= 60.0
    assert found.places("red") == {"other": "s3://data/other"}


def test_workers_get_nothing_of_places_and_channels(server: RedisServer, tmp_path: Path) -> None:
    text = "tenants: {red: {weight: 2, destinations: ['s3://data/red'], channels: [x]}}"
    (tmp_path / "tenants.yaml").write_text(text)
    ledger = server.ledger()
    ledger.publish_shares(read_tenants(tmp_path / "tenants.yaml"))
    assert "data" not in repr(ledger._redis.hgetall(KEY_PREFIX + "shares"))
    assert "2.0" in repr(ledger._redis.hgetall(KEY_PREFIX + "shares"))
