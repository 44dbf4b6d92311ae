"""Channels: ``<root>/channels/<name>.json`` points to the current bundle. A build pins the digest that it points to.

A bundle never changes. The channel moves by conditional writes and keeps its history for ``roll_back_channel``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from generator.errors import BundleError, BundleMissing, SpecError
from generator.models.bundle.load import read_info
from generator.models.bundle.transfer import bundle_store
from generator.spec.canonical import FrozenModel, read_json, short_repr, validate
from generator.spec.recipe import Digest, Name
from generator.store import pointers
from generator.store.base import Store

MAX_CHANNEL_BYTES = 2**20
MAX_MOVES = 100
_PREFIX = "channels/"
_NAME: TypeAdapter[str] = TypeAdapter(Name)


class ChannelMove(FrozenModel):
    """One move of a channel: to which bundle, by whom and when."""

    bundle: Digest
    by: str = Field(min_length=1, max_length=200)
    at: AwareDatetime


class Channel(FrozenModel):
    """The content of ``<root>/channels/<name>.json``. ``line``: the name. ``previous``: newest move first."""

    channel_version: Literal[1] = 1
    line: Name
    current: ChannelMove
    previous: tuple[ChannelMove, ...] = Field(default=(), max_length=MAX_MOVES)

    @property
    def bundle(self) -> str:
        """The digest of the bundle that the channel points to."""
        return self.current.bundle


def read_channel_digest(root: Store, name: str) -> str:
    """The digest of the bundle that the channel points to. Raises ``BundleMissing`` if there is no such channel."""
    return load_channel(root, name).bundle


def load_channel(root: Store, name: str) -> Channel:
    """The whole channel. Raises ``BundleMissing``, ``BundleError`` if it is damaged, ``SpecError`` for the name."""
    channel = _parse(root, name, pointers.read(root, _key(name), MAX_CHANNEL_BYTES))
    if channel is None:
        known = ", ".join(channel_names(root)) or "none"
        raise BundleMissing("channel", f"one of {root.url}: {known}", short_repr(name), "push a bundle with --channel")
    return channel


def channel_names(root: Store) -> list[str]:
    """The names of all channels, ascending."""
    keys = (info.key.removeprefix(_PREFIX).removesuffix(".json") for info in root.list(_PREFIX))
    return sorted(filter(_is_name, keys))


def load_channels(root: Store) -> Iterator[Channel]:
    """All channels, ascending by name. Raises as ``load_channel`` does."""
    return (load_channel(root, name) for name in channel_names(root))


def move_channel(root: Store, name: str, digest: str, *, by: str, at: datetime | None = None) -> Channel:
    """Point the channel to the bundle ``digest``, which must be in ``root``; returns the new state of the channel.

    No change if it already points there. Raises ``BundleMissing``, and ``SpecError`` for the name.
    """
    read_info(bundle_store(root, digest), digest)
    move = ChannelMove(bundle=digest, by=by, at=at or datetime.now(UTC))

    def decide(channel: Channel | None) -> Channel | None:
        if channel is None:
            return Channel(line=name, current=move)
        if move in (channel.current, *channel.previous) or channel.bundle == digest:
            return None
        return channel.model_copy(
            update={"current": move, "previous": (channel.current, *channel.previous)[:MAX_MOVES]}
        )

    return _update(root, name, decide)


def roll_back_channel(root: Store, name: str, *, by: str, at: datetime | None = None) -> Channel:
    """Point the channel to the previous bundle, which must still be in ``root``; returns the new state of the channel.

    The roll-back is recorded as a new move, so rolling back twice returns to the first bundle. Raises ``BundleMissing``
    if there is no previous bundle, and ``BundleError`` if another client moves the channel at the same time.
    """
    before, at = load_channel(root, name), at or datetime.now(UTC)
    earlier = next((move.bundle for move in before.previous if move.bundle != before.bundle), None)
    if earlier is None:
        raise BundleMissing("channel", "a bundle that the channel pointed to before", f"none in {name}")
    read_info(bundle_store(root, earlier), earlier)
    new_move = ChannelMove(bundle=earlier, by=by, at=at)

    def decide(channel: Channel | None) -> Channel | None:
        if channel is not None and new_move in (channel.current, *channel.previous):
            return None
        if channel is None or channel.current != before.current:
            raise BundleError(
                "channel",
                "no other move at the same time",
                f"another move of {name}",
                "check the channel and try again",
            )
        return channel.model_copy(
            update={"current": new_move, "previous": (channel.current, *channel.previous)[:MAX_MOVES]}
        )

    return _update(root, name, decide)


def _update(root: Store, name: str, decide: Callable[[Channel | None], Channel | None]) -> Channel:
    def decide_bytes(data: bytes | None) -> bytes | None:
        channel = decide(_parse(root, name, data))
        return None if channel is None else channel.canonical()

    updated = _parse(root, name, pointers.move(root, _key(name), decide_bytes, MAX_CHANNEL_BYTES))
    assert updated is not None
    return updated


def _parse(root: Store, name: str, data: bytes | None) -> Channel | None:
    if data is None:
        return None
    field = f"{root.url}/{_key(name)}"
    channel = validate(Channel, read_json(data, field=field, error=BundleError), field=field, error=BundleError)
    if channel.line != name:
        raise BundleError(field, f"the channel {name}", f"the channel {channel.line}")
    return channel


def check_channel_name(name: str) -> str:
    """``name``, if it is a valid channel name. Raises ``SpecError``."""
    if not _is_name(name):
        raise SpecError(
            "channel", "a name of lower-case letters, digits, _ and -, at most 63 characters", short_repr(name)
        )
    return name


def _key(name: str) -> str:
    return f"{_PREFIX}{check_channel_name(name)}.json"


def _is_name(name: str) -> bool:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        return False
    return True
