"""The group keys: makes, lists and revokes the keys of the HTTP server."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from workers.cli.output import json_option, show
from workers.server.access.roles import ROLES, Role

if TYPE_CHECKING:
    from generator.store.base import Store
    from workers.server.access.keys import Key
    from workers.settings import Settings

_LINK_MINUTES = 15


@click.group("keys")
def keys_command() -> None:
    """Make, list and revoke keys of the HTTP server. They lie in the store root, below keys/, as hashes."""


@keys_command.command("add")
@click.option("--tenant", required=True, help="Tenant of the key: of its jobs, places and channels.")
@click.option(
    "--role", required=True, type=click.Choice(ROLES), help="What it allows; each role includes the ones before."
)
@click.option("--expires", default=90, show_default=True, type=click.IntRange(1, 3650), help="Days until it expires.")
@click.option("--note", default="", help="For whom it is.")
@click.option("--link", "with_link", is_flag=True, help="Show a one-time link for a browser instead of the token.")
@json_option
def add_command(tenant: str, role: Role, expires: int, note: str, with_link: bool, as_json: bool) -> None:
    """Make a key and show its token, once: nothing keeps it."""
    from workers.server.access.keys import add_key
    from workers.server.access.links import add_link

    settings, root = _root()
    key, token = add_key(root, tenant, role, timedelta(days=expires), note=note)
    facts = _facts(key) | ({} if with_link else {"token": token})
    if with_link:
        code = add_link(root, token, timedelta(minutes=_LINK_MINUTES))
        facts["link"] = f"{(settings.server_url or '').rstrip('/')}/login/{code}"
    show(facts, as_json=as_json, title="key")


@keys_command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List all keys, without their tokens."""
    from workers.server.access.keys import read_keys

    keys = sorted(read_keys(_root()[1]), key=lambda key: key.created)
    if as_json:
        click.echo(json.dumps([_facts(key) for key in keys], indent=2))
        return
    if not keys:
        click.echo("no keys")
        return
    click.secho(f"{'key':<16}  {'tenant':<16}  {'role':<9}  {'state':<8}  expires     note", bold=True)
    for key in keys:
        state = "live" if key.is_live(datetime.now(UTC)) else "revoked" if key.revoked else "expired"
        click.echo(f"{key.id:<16}  {key.tenant:<16}  {key.role:<9}  {state:<8}  {key.expires:%Y-%m-%d}  {key.note}")


@keys_command.command("revoke")
@click.argument("key")
@json_option
def revoke_command(key: str, as_json: bool) -> None:
    """Revoke KEY (its id): no server accepts it ten seconds later."""
    from workers.server.access.keys import revoke_key

    show(_facts(revoke_key(_root()[1], key)), as_json=as_json, title="revoked")


def _root() -> tuple[Settings, Store]:
    from generator.store import open_store
    from workers.broker.connection import embedded_root
    from workers.settings import load_settings

    settings = load_settings()
    return settings, open_store(embedded_root(settings) or settings.root, settings.s3)


def _facts(key: Key) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "key": key.id,
        "tenant": key.tenant,
        "role": key.role,
        "expires": key.expires.isoformat(timespec="seconds"),
    }
    if key.revoked is not None:
        facts["revoked"] = key.revoked.isoformat(timespec="seconds")
    return facts | ({"note": key.note} if key.note else {})
