"""The command channels: lists, shows and moves channels, the named pointers to the newest bundle of a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from workers.cli.output import json_option, show

if TYPE_CHECKING:
    from generator.models.bundle.channels import Channel


@click.command("channels")
@click.argument("line", required=False)
@click.option("--to", help="Point channel LINE to this bundle of the store root (sha256:...).")
@click.option("--rollback", "roll_back", is_flag=True, help="Point channel LINE to its previous bundle.")
@click.option("--root", help="Store root; by default the configured one.")
@json_option
def channels_command(line: str | None, to: str | None, roll_back: bool, root: str | None, as_json: bool) -> None:
    """List the channels of the store root, or show or move the channel LINE.

    A channel is a named pointer to the newest bundle of a line of models. `latentmill push BUNDLE --channel LINE` moves
    it too. A job or run uses the bundle that the channel pointed to when it was created; moving the channel later does
    not change it.
    """
    from generator.errors import SpecError
    from generator.models.bundle.channels import load_channel, load_channels, move_channel, roll_back_channel
    from generator.store import open_store
    from workers.broker.connection import embedded_root
    from workers.cli.arguments import current_user
    from workers.settings import load_settings

    settings = load_settings()
    store = open_store(root or embedded_root(settings) or settings.root, settings.s3)
    if line is None:
        if to or roll_back:
            raise SpecError("line", "the channel to move", "none")
        _show_channels(list(load_channels(store)), as_json=as_json)
        return
    if to and roll_back:
        raise SpecError("channels", "--to or --rollback", "both")
    title = "moved" if to or roll_back else ""
    if to:
        found = move_channel(store, line, _parse_digest(to), by=current_user())
    else:
        found = roll_back_channel(store, line, by=current_user()) if roll_back else load_channel(store, line)
    show(channel_facts(found), as_json=as_json, title=title)


def channel_facts(channel: Channel) -> dict[str, Any]:
    """A channel as the command line shows it."""
    return {
        "line": channel.line,
        "bundle": channel.bundle,
        "by": channel.current.by,
        "at": channel.current.at.isoformat(timespec="seconds"),
        "before": [move.bundle for move in channel.previous],
    }


def _show_channels(found: list[Channel], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([channel_facts(channel) for channel in found], indent=2))
        return
    if not found:
        click.echo("no channels; create one with `latentmill push BUNDLE --channel LINE`")
    width = max((len(channel.line) for channel in found), default=0)
    for channel in found:
        click.echo(f"{channel.line:<{width}}  {channel.bundle}  {channel.current.at:%Y-%m-%d %H:%M} UTC")


def _parse_digest(text: str) -> str:
    from pydantic import TypeAdapter, ValidationError

    from generator.errors import SpecError
    from generator.spec.canonical import short_repr
    from generator.spec.recipe import Digest

    try:
        found: str = TypeAdapter(Digest).validate_python(text)
    except ValidationError as error:
        raise SpecError("to", "the digest of a bundle: sha256: and 64 hexadecimal digits", short_repr(text)) from error
    return found
