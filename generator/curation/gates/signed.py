"""The gate ``signed``: a trusted key signed the manifest that is judged."""

from __future__ import annotations

from collections.abc import Sequence

from generator.curation.gates.verdict import Check
from generator.errors import IntegrityError
from generator.production.provenance.manifest import MANIFEST_KEY, MAX_MANIFEST_BYTES, Manifest, parse_manifest
from generator.signatures import PublicKey, check_signed
from generator.store.base import Store


def check_signature(build: Store, manifest: Manifest, trusted: Sequence[PublicKey]) -> Check:
    """Whether one of ``trusted`` signed the manifest at ``build``, which must be ``manifest``."""
    data = build.get(MANIFEST_KEY, MAX_MANIFEST_BYTES)
    try:
        key = check_signed(build, MANIFEST_KEY, data, trusted)
    except IntegrityError as refused:
        return Check(gate="signed", holds=False, words=str(refused))
    if parse_manifest(data, build) != manifest:
        return Check(gate="signed", holds=False, words="the manifest changed while it was judged")
    return Check(gate="signed", holds=True, words=f"signed by {key.id}")
