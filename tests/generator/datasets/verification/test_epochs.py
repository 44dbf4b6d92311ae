"""``verify_dataset`` on a build of two environments: each receipt names its environment, and both are stored."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from generator.datasets.verification import verify_dataset
from generator.errors import IntegrityError
from generator.production.commit import (
    BuildLocation,
    begin_build,
    locate_build,
    open_epoch,
    publish_shard,
    read_environments,
)
from generator.production.commit.epochs import environment_key, epoch_key, fix_environment
from generator.production.commit.finish import finish_build
from generator.production.commit.publish import commit
from generator.production.provenance.environment import Environment
from generator.production.provenance.manifest import Manifest
from generator.spec.plan import Plan
from generator.store import Store
from tests.support.small_builds import ENVIRONMENT, SmallBuild

NEW = Environment(device="cuda/test", dtype="float32", libraries={"pillow": "any"})
SMALL = SmallBuild()


def two_environments(*, first: Environment | None = ENVIRONMENT) -> BuildLocation:
    """A build of three shards: shard 0 is made in the environment ``first``, the others in ``NEW``."""
    location = locate_build(SMALL.spec(f"memory://{uuid.uuid4().hex}"))
    begin_build(location)
    fix_environment(location.store, ENVIRONMENT)
    open_epoch(location.store)
    fix_environment(location.store, NEW)
    for number in range(3):
        made = SMALL.shard(location, Plan(location.recipe).shard(number))
        environment = first if number == 0 and first is not None else NEW
        receipt = made.receipt.model_copy(update={"environment": environment.digest})
        publish_shard(location, type(made)(made.archive, made.table, receipt))
    return location


def commit_build(location: BuildLocation) -> Manifest:
    """Commit like ``finish_build``, but without a bundle."""
    from generator.production.commit import read_receipt
    from generator.production.commit.finish import used_environments
    from generator.production.provenance.croissant import croissant_bytes
    from generator.production.provenance.dataset_card import card_bytes
    from generator.production.provenance.preview import preview_bytes

    receipts = tuple(read_receipt(location, number) for number in range(3))
    draft = SMALL.draft(location, receipts).model_copy(update={"environments": used_environments(location, receipts)})
    shown = [(SMALL.pixels(index), index % 2) for index in range(4)]
    extras = {
        "README.md": card_bytes(draft),
        "croissant.json": croissant_bytes(draft),
        "preview.jpg": preview_bytes(shown, SMALL.classes, location.recipe.recipe_version),
    }
    return commit(location, draft, extras)


def test_a_build_of_two_environments_is_intact_and_names_both() -> None:
    location = two_environments()
    manifest = commit_build(location)
    assert set(manifest.environments) == {ENVIRONMENT.digest, NEW.digest}
    assert [shard.environment for shard in manifest.shards] == [ENVIRONMENT.digest, NEW.digest, NEW.digest]
    assert verify_dataset(location.url, deep=True).problems == ()


def test_an_environment_that_wrote_no_shard_is_stored_and_not_named() -> None:
    location = two_environments(first=None)
    assert set(commit_build(location).environments) == {NEW.digest}
    assert set(read_environments(location.store)) == {ENVIRONMENT.digest, NEW.digest}
    assert verify_dataset(location.url, deep=True).problems == ()


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        (lambda store: store.put(environment_key(1), ENVIRONMENT.canonical()), "manifest.json"),
        (lambda store: store.put(environment_key(1), NEW.canonical().replace(b"any", b"ony")), environment_key(1)),
        (lambda store: store.put(environment_key(1), NEW.canonical() + b" "), environment_key(1)),
        (lambda store: store.put(environment_key(1), b"x" * 10**6), environment_key(1)),
        (lambda store: store.delete(environment_key(1)), "manifest.json"),
        (lambda store: store.put(epoch_key(1), b'{"epoch":1}'), epoch_key(1)),
        (lambda store: store.put(environment_key(2), b"{}"), environment_key(2)),
        (lambda store: store.put("environments/1.json", b"{}"), "environments/1.json"),
        (lambda store: store.put("epochs/notes.txt", b"{}"), "epochs/notes.txt"),
    ],
)
def test_damage_to_epochs_is_found(damage: Callable[[Store], None], where: str) -> None:
    location = two_environments()
    commit_build(location)
    damage(location.store)
    assert where in {problem.where for problem in verify_dataset(location.url, deep=True).problems}


def test_what_an_earlier_committer_stored_of_the_extras_stays() -> None:
    """Two processes that commit in different environments agree on one manifest."""
    location = two_environments()
    location.store.create("preview.jpg", b"as another encoder makes it")
    manifest = commit_build(location)
    assert commit_build(location) == manifest
    assert location.store.get("preview.jpg") == b"as another encoder makes it"


def test_a_receipt_of_an_environment_that_this_build_never_had_is_refused() -> None:
    location = two_environments()
    location.store.delete(environment_key(1))
    with pytest.raises(IntegrityError, match=r"receipts/000001\.json"):
        finish_build(location, None)  # type: ignore[arg-type]
