"""The clients of Google Cloud Storage and Azure Blob Storage in a process, and the translation of their errors.

Only this file imports obstore. Its threads do not survive a fork, after which every call would wait for ever; so a
forked child of a process that used it is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal

from generator.errors import (
    AccessDenied,
    BucketMissing,
    ObjectMissing,
    SettingsError,
    StoreError,
    StoreUnavailable,
)

CloudScheme = Literal["gs", "az"]

_TIMEOUT = timedelta(minutes=5)  # of one request, with its body
_CONNECT_TIMEOUT = timedelta(seconds=10)
RETRIES = 4
_RETRY_TIMEOUT = timedelta(minutes=1)
_MISSING_BUCKET = re.compile(r"ContainerNotFound|ContainerBeingDeleted|NoSuchBucket|bucket does not exist")
_RIGHTS = {
    "gs": "GOOGLE_APPLICATION_CREDENTIALS names a key file, whose account needs the role Storage Object Admin",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and a key, a token or an identity with rights on blobs",
}
_state = {"used": False, "inherited": False}


def _note_fork() -> None:
    _state["inherited"] = _state["used"]


os.register_at_fork(after_in_child=_note_fork)


@lru_cache(maxsize=16)
def _open_client(scheme: CloudScheme, container: str) -> Any:
    try:
        from obstore.store import AzureStore, GCSStore
    except ImportError as missing:
        hint = "pip install 'latentmill[clouds]'"
        raise SettingsError(
            "url", "a store whose package is installed", f"{scheme}:// without obstore", hint
        ) from missing
    kind = GCSStore if scheme == "gs" else AzureStore
    options: Any = {"timeout": _TIMEOUT, "connect_timeout": _CONNECT_TIMEOUT, "allow_http": True}
    retries: Any = {"max_retries": RETRIES, "retry_timeout": _RETRY_TIMEOUT}
    with translate_errors(scheme, container, f"{scheme}://{container}"):
        return kind(container, client_options=options, retry_config=retries)


def client_of(scheme: CloudScheme, container: str) -> Any:
    """This process's client of a bucket. Raises ``SettingsError`` in a forked child, and without the package."""
    if _state["inherited"]:
        hint = "Give the DataLoader multiprocessing_context='spawn', or num_workers=0."
        expected = f"spawned processes: the client of {scheme}:// does not survive a fork"
        raise SettingsError("multiprocessing_context", expected, "fork", hint)
    client = _open_client(scheme, container)
    _state["used"] = True
    return client


def forget_clients() -> None:
    """Let the next use read the variables again."""
    _open_client.cache_clear()
    require_container.cache_clear()


@lru_cache(maxsize=64)
def require_container(scheme: CloudScheme, container: str) -> None:
    """Raises ``BucketMissing``. A bucket or container that was found is not asked for again."""
    with translate_errors(scheme, container, f"{scheme}://{container}"):
        for _ in client_of(scheme, container).list(chunk_size=1):
            break


@contextmanager
def translate_errors(
    scheme: CloudScheme, container: str, where: str, refused: StoreError | None = None
) -> Iterator[None]:
    """Errors of obstore as errors about ``where``; ``refused`` is raised if a condition of a write did not hold."""
    from obstore import exceptions

    try:
        yield
    except (FileNotFoundError, exceptions.BaseError, ValueError) as error:
        got = _first_line(error)
        if _MISSING_BUCKET.search(str(error)) or (isinstance(error, exceptions.GenericError) and _is_404(got)):
            raise bucket_missing(scheme, container) from error
        if isinstance(error, FileNotFoundError | exceptions.NotFoundError):
            raise ObjectMissing(where, "an object", "nothing") from error
        if refused is not None and isinstance(error, exceptions.AlreadyExistsError | exceptions.PreconditionError):
            raise refused from error
        if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
            raise AccessDenied(where, "permission", got, _RIGHTS[scheme]) from error
        hint = f"check the network and the variables of {'Google' if scheme == 'gs' else 'Azure'}: {_RIGHTS[scheme]}"
        raise StoreUnavailable(where, "an answer", got, hint) from error


def bucket_missing(scheme: CloudScheme, container: str) -> BucketMissing:
    """The error about a bucket or container that does not exist."""
    kind = "bucket" if scheme == "gs" else "container"
    return BucketMissing(f"{scheme}://{container}", f"a {kind}", "none", f"make the {kind}, or correct its name")


def is_after_end(error: Exception) -> bool:
    """Whether a service refused a range because it begins after the end of its object."""
    return "status code: 416" in str(error) or "Wanted range starting at" in str(error)


def _is_404(text: str) -> bool:
    return "status code: 404" in text


def _first_line(error: Exception) -> str:
    """What happened, without what obstore appends for its developers, and without the signatures of URLs."""
    return re.sub(r"\?\S*", "", str(error).partition("\n")[0])[:300]
