"""The HTTP server of `latentmill up`: its port, the datasets that it shows, and a key for who started it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from generator.errors import LatentmillError, SettingsError, StoreError

if TYPE_CHECKING:
    from generator.store.base import Store
    from workers.settings import Settings

FOLDER = "datasets"
_NEXT_PORTS = 10
_MAX_BUILDS = 20  # of a dataset, whose bundles are looked for
_LIFE = timedelta(days=7)
_LINK_LIFE = timedelta(minutes=30)


def with_server_settings(settings: Settings) -> Settings:
    """``settings`` of the HTTP server: a port that is free, and this directory's datasets where no places are set.

    Raises ``SettingsError`` for what the server could not start with.
    """
    settings = _with_port(settings)
    from workers.server.headers import is_loopback
    from workers.server.run import checked_application

    if settings.destinations is None and settings.server_directory is None and is_loopback(settings.server_host):
        settings = settings.model_copy(update={"server_directory": Path.cwd()})
    checked_application(settings)
    return settings


def _with_port(settings: Settings) -> Settings:
    """The port that is set, or the usual one, or one after it, or any that is free."""
    from workers.settings import DEFAULT_SERVER_PORT, ENV_PREFIX

    usual = (*range(DEFAULT_SERVER_PORT, DEFAULT_SERVER_PORT + _NEXT_PORTS), 0)
    for port in usual if settings.server_port is None else (settings.server_port,):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.server_host, port))
            except OSError as taken:
                if settings.server_port is None and port and taken.errno == errno.EADDRINUSE:
                    continue
                expected, got = "a free port on this machine", f"{settings.server_host}:{port} ({taken.strerror})"
                hint = "--port chooses another one; without it and without this setting, `up` takes a free one"
                raise SettingsError(f"{ENV_PREFIX}SERVER_PORT", expected, got, hint) from taken
            return settings.model_copy(update={"server_port": probe.getsockname()[1]})
    raise AssertionError("port 0 is any free port")


@contextmanager
def local_datasets(settings: Settings) -> Iterator[dict[str, str]]:
    """What to show about the datasets of the pages, where they are those of this directory.

    Meanwhile, the bundles of their builds are copied into the store root, if they lie beside them: pages show real
    images next to samples, and what was refused, by the bundle.
    """
    if settings.server_directory is None or settings.destinations is not None:
        yield {}
        return
    Thread(target=take_bundles, args=(settings, settings.server_directory), daemon=True).start()
    yield {"shows": f"datasets in {settings.server_directory} and in the folders below it, and what its jobs write"}


def take_bundles(settings: Settings, directory: Path) -> None:
    """Copy the bundles of the builds in ``directory`` into the store root, from beside their folder ``datasets``."""
    from generator.models.bundle.format import INFO_FILE
    from generator.store import open_store

    with suppress(LatentmillError, OSError):
        for folder in (directory, *sorted(each for each in directory.iterdir() if (each / FOLDER).is_dir())):
            files = (*folder.glob(f"*.bundle/{INFO_FILE}"), *folder.glob(f"root/bundles/*/{INFO_FILE}"))
            bundles = [open_store(str(file.parent)) for file in sorted(files)]
            place = open_store(str(folder / FOLDER))
            for digest in sorted({found for name in place.children() for found in _bundles_of(place.at(name))}):
                _take_bundle(open_store(settings.root, settings.s3), digest, bundles)


def _bundles_of(dataset: Store) -> Iterator[str]:
    from generator.datasets.builds import list_builds
    from generator.production.commit import read_build_location

    for build in list_builds(dataset)[:_MAX_BUILDS]:
        with suppress(LatentmillError):
            yield read_build_location(dataset.at(f"builds/{build}"), "dataset").recipe.bundle


def _take_bundle(root: Store, digest: str, bundles: list[Store]) -> None:
    from generator.models.bundle import bundle_store, push
    from generator.models.bundle.format import INFO_FILE
    from generator.models.bundle.load import read_info_bytes
    from generator.spec.canonical import digest_of

    if bundle_store(root, digest).head(INFO_FILE) is None:
        for each in bundles:
            with suppress(LatentmillError):
                if digest_of(read_info_bytes(each)) == digest:
                    push(each, root)
                    return


@contextmanager
def first_key(settings: Settings, *, with_server: bool) -> Iterator[dict[str, str]]:
    """What to show about the server: its address, with a one-time link to a session as operator of tenant ``default``.

    The key behind it is revoked after the block. Where keys cannot be written, the reason is shown instead.
    """
    from generator.store import open_store
    from workers.server.access.keys import add_key, revoke_key
    from workers.server.access.links import add_link

    scheme = "http" if settings.server_cert_file is None else "https"
    address = f"{scheme}://{settings.server_host}:{settings.server_port}"
    if not with_server or settings.server_without_keys:
        yield {"pages": address} if with_server else {}
        return
    root = open_store(settings.root, settings.s3)
    try:
        key, token = add_key(root, "default", "operator", _LIFE, note="latentmill up")
        code = add_link(root, token, _LINK_LIFE)
    except StoreError as refused:
        yield {"pages": f"{address} (no key was made: {refused})"}
        return
    try:
        yield {"pages": f"{address}/login/{code}"}
    finally:
        with suppress(LatentmillError):
            revoke_key(root, key.id)
