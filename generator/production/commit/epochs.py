"""Epochs: the sequence of environments that write one build.

The first worker of a build fixes its environment (``environment.json``, epoch 0). If no worker of that kind is left, an
operator opens the next epoch: the shards without a receipt are then for workers of another environment, which the
first of them fixes. Both steps are conditional writes, so all processes see the same epochs.

A worker of an earlier epoch may still be running. It does no harm, because it only creates objects. Either its receipt
is the first one: then the shard is its own, complete, and names an environment of this build. Or it finds the key
taken and stops (``generator.production.commit.publish``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from generator.errors import BuildConflict, DatasetError, EnvironmentMismatch, ObjectMissing, SpecError
from generator.production.provenance.environment import Environment, describe_differences
from generator.production.provenance.manifest import ENVIRONMENT_KEY, MANIFEST_KEY
from generator.spec.canonical import FrozenModel, read_json, validate
from generator.spec.recipe import Digest
from generator.store.base import Store
from generator.store.put_once import put_once

MAX_EPOCHS = 1000
MAX_EPOCH_BYTES = 64 * 1024  # size limit of an environment and of an epoch opening

_EPOCHS_PREFIX = "epochs/"
_EPOCH_KEY = re.compile(r"epochs/(\d{3})\.json")


class EpochOpening(FrozenModel):
    """``epochs/<number>.json``: opens epoch ``epoch`` for any environment except ``leaves``."""

    opening_version: Literal[1] = 1
    epoch: int = Field(ge=1, lt=MAX_EPOCHS)
    leaves: Digest


@dataclass(frozen=True)
class Epoch:
    """One epoch of a build; ``environment`` is ``None`` until its first worker has fixed it."""

    number: int
    environment: Environment | None


def epoch_key(number: int) -> str:
    """The key of the opening of epoch ``number`` (1 or more)."""
    return f"{_EPOCHS_PREFIX}{number:03d}.json"


def environment_key(number: int) -> str:
    """The key of the environment of epoch ``number``; that of epoch 0 is ``environment.json``."""
    return f"environments/{number:03d}.json" if number else ENVIRONMENT_KEY


def epoch_numbers(store: Store) -> range:
    """The epochs of the build at ``store``: 0 and those that were opened."""
    found = (_EPOCH_KEY.fullmatch(info.key) for info in store.list(_EPOCHS_PREFIX))
    return range(1 + max((int(match[1]) for match in found if match), default=0))


def current_epoch(store: Store) -> Epoch:
    """The newest epoch of the build."""
    number = epoch_numbers(store)[-1]
    return Epoch(number, read_environment(store, number))


def read_environments(store: Store) -> dict[str, Environment]:
    """The environments of all epochs, by digest."""
    found = (read_environment(store, number) for number in epoch_numbers(store))
    return {environment.digest: environment for environment in found if environment is not None}


def open_epoch(store: Store) -> int:
    """``resume --new-environment``: open the next epoch of the unfinished build at ``store``. Returns its number.

    Shards with a receipt stay as they are. The other shards and the commit are then for workers of a new environment;
    the first of them fixes it (``fix_environment``). Workers of a different environment, including the replaced one,
    get ``EnvironmentMismatch`` and skip the job. Callers that cache declined jobs must retry when the number changes.

    Does nothing if no worker has fixed the newest epoch yet (so opening twice, or from two processes at once, opens
    one epoch), or if the build is committed; the number is then that of the newest epoch. Raises ``SpecError`` after
    999 epochs, ``StoreError``.
    """
    current = current_epoch(store)
    if current.environment is None or store.head(MANIFEST_KEY) is not None:
        return current.number
    number = current.number + 1
    if number >= MAX_EPOCHS:
        raise SpecError("epoch", f"at most {MAX_EPOCHS} environments of one build", number, "use a new revision")
    put_once(store, epoch_key(number), EpochOpening(epoch=number, leaves=current.environment.digest).canonical())
    return number


def fix_environment(store: Store, ours: Environment) -> Epoch:
    """Make ``ours`` the environment of the newest epoch if it has none.

    Raises ``EnvironmentMismatch`` if the epoch has a different one.
    """
    number = epoch_numbers(store)[-1]
    theirs = read_environment(store, number)
    if theirs is None:
        _refuse_previous_environment(store, number, ours)
        try:
            put_once(store, environment_key(number), ours.canonical())
        except BuildConflict:
            theirs = read_environment(store, number)
    if theirs not in (None, ours):
        assert theirs is not None
        raise EnvironmentMismatch(
            "environment",
            f"the environment that the first worker of {_epoch_name(number)} fixed ({theirs.digest})",
            f"this worker's, with {describe_differences(ours, theirs)}",
            "run a worker with the same versions and device kind, or `latentmill resume JOB --new-environment`",
        )
    return Epoch(number, ours)


def read_environment(store: Store, number: int) -> Environment | None:
    """The environment of an epoch; ``None`` until its first worker has fixed it. Raises ``DatasetError``."""
    key = environment_key(number)
    try:
        data = store.get(key, MAX_EPOCH_BYTES)
    except ObjectMissing:
        return None
    return validate(Environment, read_json(data, field=key, error=DatasetError), field=key, error=DatasetError)


def _refuse_previous_environment(store: Store, number: int, ours: Environment) -> None:
    if number == 0:
        return
    key = epoch_key(number)
    document = read_json(store.get(key, MAX_EPOCH_BYTES), field=key, error=DatasetError)
    opening = validate(EpochOpening, document, field=key, error=DatasetError)
    if ours.digest == opening.leaves:
        raise EnvironmentMismatch(
            "environment",
            f"an environment other than {opening.leaves}, which epoch {number} of this build replaces",
            "this worker's, which is the replaced one",
            "run a worker with another device kind or other versions",
        )


def _epoch_name(number: int) -> str:
    return f"epoch {number} of this build" if number else "this build"
