"""Azurite: the emulator of Azure Blob Storage, as a server for tests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import os
import shutil
from email.utils import formatdate
from pathlib import Path

from tests.support.servers import Server

ACCOUNT = "devstoreaccount1"
# The key that every Azurite has, by its documentation.
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_VERSION = "2021-08-06"


def azurite_binary() -> str | None:
    """``azurite-blob`` of an npm installation: on PATH, or below the folder that LATENTMILL_AZURITE names."""
    folder = os.environ.get("LATENTMILL_AZURITE")
    return shutil.which("azurite-blob", path=f"{folder}/node_modules/.bin" if folder else None)


class AzuriteServer(Server):
    """A private Azurite with its blobs in memory."""

    def __init__(self) -> None:
        super().__init__(_command, _answers)

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which stores find it."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{self.port}/{ACCOUNT}",
        }

    def make_container(self, name: str) -> str:
        """Make a container; its URL. The request is signed by the scheme of shared keys."""
        date = formatdate(usegmt=True)
        stated = (f"x-ms-date:{date}", f"x-ms-version:{_VERSION}", f"/{ACCOUNT}/{ACCOUNT}/{name}", "restype:container")
        signed = "\n".join(("PUT", *[""] * 11, *stated))
        mac = hmac.new(base64.b64decode(ACCOUNT_KEY), signed.encode(), hashlib.sha256).digest()
        headers = {"x-ms-date": date, "x-ms-version": _VERSION, "Content-Length": "0"}
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(mac).decode()}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("PUT", f"/{ACCOUNT}/{name}?restype=container", headers=headers)
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
        connection.close()
        return f"az://{name}"


def _command(port: int, directory: Path) -> list[str]:
    binary = azurite_binary()
    assert binary is not None
    del directory
    where = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    return [binary, "--silent", "--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry", *where]


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", f"/{ACCOUNT}?comp=list")
        return connection.getresponse().status == 403  # it listens, and wants a signature
    except OSError:
        return False
    finally:
        connection.close()
