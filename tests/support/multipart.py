"""Forms with files, as browsers and clients send them."""

from __future__ import annotations

from collections.abc import Mapping

from urllib3.filepost import encode_multipart_formdata


def multipart(files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """Body and content type of a form whose parts are ``files``, each under its own name."""
    if not files:
        return b"--x--\r\n", "multipart/form-data; boundary=x"
    body, kind = encode_multipart_formdata([(name, (name, data)) for name, data in files.items()])
    return body, kind
