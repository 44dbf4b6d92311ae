"""C2PA manifests (content credentials) for single image files: signed statements that a file is synthetic.

https://spec.c2pa.org; needs the package ``c2pa-python``. No service is asked, so the signatures have no time stamp, and
two signatures of one file differ. The manifest names the build, so an image that left its dataset still leads back.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from generator.errors import InvalidOutput, KeyFileError, SpecError
from generator.production.images.xmp import SOURCE_TYPE
from generator.production.provenance.citation import SOFTWARE
from generator.production.provenance.manifest import Manifest

ALGORITHMS = ("es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519")
_MAX_KEY_BYTES = 2**20


def image_signer(certificates: Path, key: Path, algorithm: str, manifest: Manifest) -> Callable[[bytes], bytes]:
    """A function that adds a signed manifest to an image file of the build of ``manifest``.

    ``certificates``: file of the certificate chain in PEM, that of the signer first; ``key``: file of its private key
    in PEM. Raises ``KeyFileError``, ``SpecError`` if the package is missing; the function raises ``InvalidOutput``.
    """
    c2pa, chain, secret = _require_c2pa(), _read_file("c2pa-cert", certificates), _read_file("c2pa-key", key)
    media_type, statement = f"image/{manifest.image.format}", json.dumps(_statement(manifest))
    try:
        signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm.encode(), chain, secret, None))
    except c2pa.C2paError as refused:
        expected = f"a certificate chain and its {algorithm} key in PEM"
        raise KeyFileError("c2pa-key", expected, f"others ({refused})"[:300]) from refused

    def sign(image: bytes) -> bytes:
        signed = io.BytesIO()
        try:
            with c2pa.Builder(statement) as builder:
                builder.sign(signer, media_type, io.BytesIO(image), signed)
        except c2pa.C2paError as refused:
            hint = "the certificate needs the extended key usage emailProtection, and another issuer than itself"
            raise InvalidOutput("c2pa", "an image that can be signed", f"{refused}"[:300], hint) from refused
        return signed.getvalue()

    return sign


def _statement(manifest: Manifest) -> dict[str, Any]:
    created = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE}
    build = {"build": manifest.build_id, "recipe": manifest.recipe_digest, "name": manifest.name}
    return {
        "claim_generator_info": [{"name": SOFTWARE}],
        "title": manifest.name,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
            {"label": "org.latentmill.build", "data": build},
        ],
    }


def _require_c2pa() -> Any:
    try:
        import c2pa
    except ImportError as missing:
        hint = "pip install 'latentmill[exports]'"
        raise SpecError("c2pa-cert", "the package c2pa-python", "none installed", hint) from missing
    return c2pa


def _read_file(field: str, path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_KEY_BYTES:
            raise KeyFileError(field, f"a file of at most {_MAX_KEY_BYTES} bytes", str(path))
        return path.read_bytes()
    except OSError as missing:
        raise KeyFileError(field, "a file that can be read", f"{path} ({missing.strerror})") from missing
