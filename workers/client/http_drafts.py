"""Specs for a server: what lies on this machine (a bundle, images) is uploaded, and paths become digests or bytes."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from generator.drafts import JobDraft, parse_mapping, read_yaml_file
from generator.errors import SpecError
from generator.models.bundle import read_info
from generator.models.bundle.format import INFO_FILE, BundleFile, BundleInfo
from generator.models.bundle.load import read_file, read_info_bytes
from generator.spec.recipe import JobSpec
from generator.store import open_store
from generator.store.base import Store
from workers.client.http_connection import HttpConnection
from workers.client.service import Submittable
from workers.settings import load_settings

MAX_IMAGE_BYTES = 6 * 2**20


def body_of(spec: Submittable, server: HttpConnection) -> dict[str, Any]:
    """The body of a request about ``spec``. A bundle of this machine is uploaded first, unless the server has it.

    Raises ``SpecError``, ``BundleError``, and what the server answers.
    """
    if isinstance(spec, JobSpec):
        return spec.model_dump(mode="json")
    if isinstance(spec, JobDraft):
        fields = spec.model_dump(mode="json", exclude_unset=True)
    elif isinstance(spec, str | Path):
        fields = parse_mapping(read_yaml_file(spec), where=str(spec))
    else:
        fields = deepcopy(spec)
    draw = fields.get("draw")
    if isinstance(draw, dict):
        for where, reference in {"draw": draw, "draw.start": draw.get("start"), "draw.end": draw.get("end")}.items():
            if isinstance(reference, dict) and isinstance(reference.get("image"), str):
                reference["image"] = _read_image(reference["image"], f"{where}.image")
    bundle = fields.get("bundle")
    if isinstance(bundle, str | Path) and not str(bundle).startswith("sha256:"):
        fields["bundle"] = upload_bundle(str(bundle), server)
    return fields


def upload_bundle(reference: str, server: HttpConnection) -> str:
    """Upload the bundle at a path or URL unless the server has it; returns its digest. Raises ``BundleError``."""
    store = open_store(reference, load_settings().s3 if "://" in reference else None)
    digest, info = read_info(store)
    if server.exists(f"/bundles/{digest}"):
        return digest
    boundary = secrets.token_hex(16)
    heads = {name: _part_head(boundary, name) for name in (*info.files, INFO_FILE)}
    end = f"--{boundary}--\r\n".encode()
    document = read_info_bytes(store, digest)
    sizes = {name: entry.size for name, entry in info.files.items()} | {INFO_FILE: len(document)}
    size = len(end) + sum(len(heads[name]) + sizes[name] + 2 for name in heads)
    body = _parts(store, info, heads, document, end)
    server.upload(f"/bundles?digest={digest}", body, size, f"multipart/form-data; boundary={boundary}")
    return digest


def _parts(
    store: Store, info: BundleInfo, heads: dict[BundleFile | str, bytes], document: bytes, end: bytes
) -> Iterator[bytes]:
    """The body of the form, a file at a time."""
    for name in info.files:
        yield heads[name]
        yield read_file(store, info, name)
        yield b"\r\n"
    yield heads[INFO_FILE] + document + b"\r\n" + end


def _part_head(boundary: str, name: str) -> bytes:
    disposition = f'form-data; name="{name}"; filename="{name}"'
    return (
        f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
    )


def _read_image(path: str, field: str) -> str:
    """The bytes of an image file of this machine in base64. Raises ``SpecError``."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
    except OSError as missing:
        raise SpecError(field, "an image file that can be read", f"{path} ({missing.strerror})") from missing
    if len(data) > MAX_IMAGE_BYTES:
        raise SpecError(field, f"an image file of at most {MAX_IMAGE_BYTES} bytes", f"a larger one at {path}")
    return base64.b64encode(data).decode()
