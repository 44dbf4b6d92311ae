"""Channels: ``<root>/channels/<line>.json`` points to the newest bundle of a line. Who builds pins the digest it finds.

A bundle never changes; what moves is the pointer, by conditional writes, with its history kept for ``roll_back``.
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
    """The content of ``<root>/channels/<line>.json``. ``previous``: the moves before, the newest first."""

    channel_version: Literal[1] = 1
    line: Name
    current: ChannelMove
    previous: tuple[ChannelMove, ...] = Field(default=(), max_length=MAX_MOVES)

    @property
    def bundle(self) -> str:
        """The digest of the bundle that the channel points to."""
        return self.current.bundle


def read_channel_digest(root: Store, line: str) -> str:
    """The digest of the newest bundle of ``line``. Raises ``BundleMissing`` where there is no such channel."""
    return load_channel(root, line).bundle


def load_channel(root: Store, line: str) -> Channel:
    """The whole channel. Raises ``BundleMissing``, ``BundleError`` for one that is damaged, ``SpecError``."""
    found = _parse(root, line, pointers.read(root, _key(line), MAX_CHANNEL_BYTES))
    if found is None:
        known = ", ".join(channel_names(root)) or "none"
        raise BundleMissing("channel", f"one of {root.url}: {known}", short_repr(line), "push a bundle with --channel")
    return found


def channel_names(root: Store) -> list[str]:
    """The names of all channels, ascending."""
    keys = (info.key.removeprefix(_PREFIX).removesuffix(".json") for info in root.list(_PREFIX))
    return [line for line in keys if _is_name(line)]


def load_channels(root: Store) -> Iterator[Channel]:
    """All channels, ascending by name. Raises as ``show_channel`` does."""
    return (load_channel(root, line) for line in channel_names(root))


def move_channel(root: Store, line: str, digest: str, *, by: str, at: datetime | None = None) -> Channel:
    """Point ``line`` to the bundle ``digest``, which lies in ``root``; the channel as it is then.

    Nothing happens where it points there already. Raises ``BundleMissing``, ``SpecError`` for the name of the line.
    """
    read_info(bundle_store(root, digest), digest)
    wanted = ChannelMove(bundle=digest, by=by, at=at or datetime.now(UTC))

    def decide(channel: Channel | None) -> Channel | None:
        if channel is None:
            return Channel(line=line, current=wanted)
        if wanted in (channel.current, *channel.previous) or channel.bundle == digest:
            return None
        return channel.model_copy(
            update={"current": wanted, "previous": (channel.current, *channel.previous)[:MAX_MOVES]}
        )

    return _update(root, line, decide)


def roll_back_channel(root: Store, line: str, *, by: str, at: datetime | None = None) -> Channel:
    """Point ``line`` to the bundle before, if that still lies in ``root``; the channel as it is then.

    The move goes on top of the history, and takes nothing from it: rolling back twice goes back and forth. Raises
    ``BundleMissing`` where there is no bundle to go to, ``BundleError`` where somebody else moves it meanwhile.
    """
    first, at = load_channel(root, line), at or datetime.now(UTC)
    earlier = next((move.bundle for move in first.previous if move.bundle != first.bundle), None)
    if earlier is None:
        raise BundleMissing("channel", "a bundle that the channel pointed to before", f"none in {line}")
    read_info(bundle_store(root, earlier), earlier)
    wanted = ChannelMove(bundle=earlier, by=by, at=at)

    def decide(channel: Channel | None) -> Channel | None:
        if channel is not None and wanted in (channel.current, *channel.previous):
            return None
        if channel is None or channel.current != first.current:
            raise BundleError("channel", "nobody else to move it", f"a move of {line} in between", "look again")
        return channel.model_copy(
            update={"current": wanted, "previous": (channel.current, *channel.previous)[:MAX_MOVES]}
        )

    return _update(root, line, decide)


def _update(root: Store, line: str, decide: Callable[[Channel | None], Channel | None]) -> Channel:
    def decided(data: bytes | None) -> bytes | None:
        wanted = decide(_parse(root, line, data))
        return None if wanted is None else wanted.canonical()

    found = _parse(root, line, pointers.move(root, _key(line), decided, MAX_CHANNEL_BYTES))
    assert found is not None
    return found


def _parse(root: Store, line: str, data: bytes | None) -> Channel | None:
    if data is None:
        return None
    field = f"{root.url}/{_key(line)}"
    channel = validate(Channel, read_json(data, field=field, error=BundleError), field=field, error=BundleError)
    if channel.line != line:
        raise BundleError(field, f"the channel {line}", f"that of {channel.line}")
    return channel


def check_channel_name(line: str) -> str:
    """``line``, if it may name a channel. Raises ``SpecError``."""
    if not _is_name(line):
        raise SpecError("channel", "a name of small letters, digits, _ and -, at most 63", short_repr(line))
    return line


def _key(line: str) -> str:
    return f"{_PREFIX}{check_channel_name(line)}.json"


def _is_name(line: str) -> bool:
    try:
        _NAME.validate_python(line)
    except ValidationError:
        return False
    return True
