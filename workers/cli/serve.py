"""The command serve: the HTTP server, with API and pages."""

from __future__ import annotations

import click


@click.command("serve")
@click.option("--host", help="Address; 0.0.0.0 is all of this machine.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65535), help="Port.  [default: 8400]")
@click.option("--names", help="Host names under which it is reached, separated by commas.")
@click.option(
    "--without-keys", is_flag=True, default=None, help="Loopback only: who asks is an operator, without a key."
)
@click.option("--root", help="Store root, with bundles, schedules, open builds and keys.")
def serve_command(
    host: str | None, port: int | None, names: str | None, without_keys: bool | None, root: str | None
) -> None:
    """Serve API and pages until stopped, over the Redis and the store of the settings.

    It keeps nothing: any number may run, behind a proxy that ends TLS or with a certificate of their own
    (LATENTMILL_SERVER_CERT_FILE). `latentmill keys add` makes the keys; docs/api.md has the routes.
    """
    from workers.cli.service import settings_with_options
    from workers.server.run import serve

    serve(
        settings_with_options(
            server_host=host, server_port=port, server_names=names, server_without_keys=without_keys, root=root
        )
    )
