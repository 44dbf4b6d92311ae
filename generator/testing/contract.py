"""The store contract (``generator.store.base``) as a test class: one test for each promise."""

from __future__ import annotations

import pickle
from unittest import SkipTest

from generator.errors import BuildConflict, SpecError
from generator.spec.canonical import digest_of
from generator.store import Store, open_store
from generator.store.partial_writes import HasPartialWrites
from generator.store.put_once import put_once
from generator.testing import unfinished_writes
from generator.testing.concurrency_checks import ConcurrencyChecks
from generator.testing.expectations import Violation, expect_equal, expect_refusal
from generator.testing.key_checks import KeyChecks
from generator.testing.listing_checks import ListingChecks
from generator.testing.object_checks import ObjectChecks


class StoreContract(ObjectChecks, ListingChecks, KeyChecks, ConcurrencyChecks):
    """Subclasses provide the fixture ``store``: an empty store that nothing else writes to during the test.

    A test fails with ``Violation``, which states what the store did, or with the error that the store raised.
    """

    def open(self, url: str) -> Store:
        """The store at ``url``. Override it if ``open_store`` needs settings, or does not know these URLs."""
        return open_store(url)

    def leave_unfinished_write(self, store: Store, key: str) -> bool:
        """Leave an unfinished write of ``key``, as a killed writer would; ``False`` if there is no way to.

        Override it for a store of your own that implements ``HasPartialWrites``.
        """
        return unfinished_writes.leave_unfinished_write(store, key)

    def test_put_once_distinguishes_a_repeat_from_a_conflict(self, store: Store) -> None:
        expect_equal("put_once of a new object", put_once(store, "a", b"same"), True)
        expect_equal("put_once of the same bytes", put_once(store, "a", b"same"), False)
        with expect_refusal(BuildConflict, "put_once of other bytes") as conflict:
            put_once(store, "a", b"else")
        error = conflict.error
        expect_equal("the field of BuildConflict", error.field, f"{store.url}/a")
        digests = (digest_of(b"else"), digest_of(b"same"))
        expect_equal("the digests of BuildConflict", (error.expected, error.got), digests)
        expect_equal("get after a conflict", store.get("a"), b"same")

    def test_check_writable_leaves_nothing_behind(self, store: Store) -> None:
        store.at("some/where").check_writable()
        store.check_writable()
        expect_equal("list after check_writable", [info.key for info in store.list()], [])
        expect_equal("children after check_writable", list(store.children()), [])

    def test_a_pickled_store_is_the_same_store(self, store: Store) -> None:
        store.create("before", b"1")
        copy: Store = pickle.loads(pickle.dumps(store))
        expect_equal("the url of a pickled store", copy.url, store.url)
        expect_equal("get by a pickled store", copy.get("before"), b"1")
        copy.create("after", b"2")
        expect_equal("get of what a pickled store wrote", store.get("after"), b"2")

    def test_a_store_is_found_again_by_its_url(self, store: Store) -> None:
        store.create("a", b"x")
        try:
            again = self.open(store.url)
        except SpecError as unknown:
            raise SkipTest("open_store does not know such URLs: override StoreContract.open") from unknown
        expect_equal("get by a store that was opened by its URL", again.get("a"), b"x")

    def test_unfinished_writes_are_reported_and_removed(self, store: Store) -> None:
        if not isinstance(store, HasPartialWrites):
            raise SkipTest("the store does not report unfinished writes")
        etag = store.create("a/b", b"whole")
        expect_equal("partial_writes of a store without any", list(store.partial_writes()), [])
        if not self.leave_unfinished_write(store, "a/unfinished"):
            raise SkipTest("no way to leave an unfinished write: override StoreContract.leave_unfinished_write")
        expect_equal(
            "list beside an unfinished write", [(info.key, info.etag) for info in store.list()], [("a/b", etag)]
        )
        found = list(store.partial_writes())
        expect_equal("the number of unfinished writes that partial_writes reports", len(found), 1)
        elsewhere = store.at("elsewhere")
        if not isinstance(elsewhere, HasPartialWrites) or list(elsewhere.partial_writes()):
            raise Violation("at('elsewhere').partial_writes reports an unfinished write that is not below it")
        found[0].remove()
        found[0].remove()
        expect_equal("partial_writes after all were removed", list(store.partial_writes()), [])
        expect_equal("get of an object beside them", store.get("a/b"), b"whole")
