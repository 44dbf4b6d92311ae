"""Detached signatures of builds and bundles: Ed25519 (RFC 8032) keys in files, used offline.

What is signed is the sha256 of the manifest, or of ``bundle.json``; both hold the digests of all other files, so
nothing else is hashed. Signatures lie beside what they sign, in ``signatures/``, outside the commit.
"""

from generator.signatures.document import SIGNATURES_PREFIX, Signature, signature_key
from generator.signatures.keys import PrivateKey, PublicKey, make_key, read_private_key, read_public_key
from generator.signatures.signing import check_signed, copy_signatures, sign

__all__ = [
    "SIGNATURES_PREFIX",
    "PrivateKey",
    "PublicKey",
    "Signature",
    "check_signed",
    "copy_signatures",
    "make_key",
    "read_private_key",
    "read_public_key",
    "sign",
    "signature_key",
]
