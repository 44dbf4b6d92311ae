"""Checks of keys: which are valid, which are refused, and prefixes."""

from __future__ import annotations

from collections.abc import Callable

from generator.errors import SpecError
from generator.store import Store
from generator.testing.expectations import Violation, expect, expect_equal, expect_refusal

INVALID_KEYS = [
    "", "/", "/etc/passwd", "..", "../up", "a/../../up", "a/./b", ".", "a//b", "a/", "a\\b", "a b", "a\n", "a\0b",
    "~", "a?b", "a#b", "a%2e%2e", "é", "a:b", ".hidden", "a/.lock", ".tmp-0123", "x" * 256, "k/" * 460 + "k", "a*",
]  # fmt: skip
VALID_KEYS = [
    "A", "a1", "_", "=", "@", "+", "-", "-.", "x..y", "a+b", "a=b@c", "year=2026/day=01/x.tar.gz", "0", "l" * 255,
    "UPPER/lower", "upper/LOWER", "n" * 255 + "/" + "m" * 100,
]  # fmt: skip


class KeyChecks:
    """What the contract says of keys and of ``at``."""

    def test_valid_keys_are_kept_unchanged(self, store: Store) -> None:
        for key in VALID_KEYS:
            store.create(key, key.encode())
        expect_equal("list", sorted(info.key for info in store.list()), sorted(VALID_KEYS))
        for key in VALID_KEYS:
            expect_equal(f"get({key[:40]!r})", store.get(key), key.encode())
            expect_equal(f"list({key[:40]!r})", key in [info.key for info in store.list(key)], True)

    def test_upper_and_lower_case_are_two_keys(self, store: Store) -> None:
        store.create("case/a", b"lower")
        store.create("case/A", b"UPPER")
        expect_equal("get of both", (store.get("case/a"), store.get("case/A")), (b"lower", b"UPPER"))

    def test_invalid_keys_are_refused_by_every_method(self, store: Store) -> None:
        taken = [f"{call}({key[:40]!r})" for key in INVALID_KEYS for call in _calls_that_take(store, key)]
        expect(not taken, f"SpecError was not raised by {', '.join(taken[:6])}, {len(taken)} call(s) in all")
        expect_equal("list after refused keys", [info.key for info in store.list()], [])

    def test_a_prefix_and_a_key_are_measured_together(self, store: Store) -> None:
        below = store.at("/".join(["p" * 200] * 4))
        with expect_refusal(SpecError, "create with a key that is too long only together with its prefix"):
            below.create("k" * 200, b"x")

    def test_a_store_below_a_prefix_sees_only_that(self, store: Store) -> None:
        below = store.at("builds/one/")
        below.create("receipts/0.json", b"{}")
        store.create("builds/one-more", b"")
        expect_equal("the url below a prefix", below.url, f"{store.url}/builds/one")
        expect_equal("list below a prefix", [info.key for info in below.list()], ["receipts/0.json"])
        expect_equal("children below a prefix", list(below.children()), ["receipts"])
        expect_equal("get above the prefix", store.get("builds/one/receipts/0.json"), b"{}")
        expect_equal("list below two prefixes", [each.key for each in below.at("receipts").list()], ["0.json"])
        expect_equal("get below two prefixes", store.at("builds").at("one").get("receipts/0.json"), b"{}")
        expect_equal("children above the prefix", list(store.at("builds").children()), ["one"])
        below.delete("receipts/0.json")
        expect_equal("list above, after a delete below", [info.key for info in store.list()], ["builds/one-more"])


def _calls_that_take(store: Store, key: str) -> list[str]:
    """The calls that do not refuse ``key``. A key that is a valid prefix is replaced where a prefix is expected."""
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: store.get(key),
        "read": lambda: store.read(key, 0, 1),
        "head": lambda: store.head(key),
        "create": lambda: store.create(key, b"x"),
        "replace": lambda: store.replace(key, b"x", "etag"),
        "put": lambda: store.put(key, b"x"),
        "delete": lambda: store.delete(key),
        "at": lambda: store.at(key) if key != "a/" else store.at("a//"),
        "list": lambda: store.list(key) if key not in ("", "a/") else store.list("/"),
        "children": lambda: store.children(f"{key}/"),
    }
    return [name for name, call in calls.items() if not _is_refused(name, key, call)]


def _is_refused(name: str, key: str, call: Callable[[], object]) -> bool:
    try:
        with expect_refusal(SpecError, f"{name}({key[:40]!r})"):
            call()
    except Violation:
        return False
    return True
