"""Secrets in files, as Docker and Kubernetes mount them: one line of text each."""

from __future__ import annotations

from pathlib import Path

from generator.errors import SettingsError

MAX_SECRET_BYTES = 64 * 1024


def read_secret(path: Path, field: str) -> str:
    """The content of ``path`` without its final line end. Raises ``SettingsError``, which never shows the secret.

    ``field`` is the setting that names the file, for the error.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
    except OSError as wrong:
        raise SettingsError(field, "a file that can be read", f"{path} ({wrong.strerror})") from wrong
    if len(data) > MAX_SECRET_BYTES:
        raise SettingsError(field, f"a secret of at most {MAX_SECRET_BYTES} bytes", f"a larger file at {path}")
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        text = ""
    if not text or any(letter in text for letter in "\0\r\n"):
        raise SettingsError(field, "a file with one line of text", f"something else at {path}") from None
    return text
