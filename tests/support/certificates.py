"""Certificates for C2PA manifests in tests: a signer, and the authority that issued its certificate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from generator.datasets.exports import Credentials


def written_credentials(home: Path, *, usage: bool = True) -> Credentials:
    """Files of a certificate for signing and its key, and of the authority that issued it."""

    def name(common: str) -> x509.Name:
        return x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests"), x509.NameAttribute(NameOID.COMMON_NAME, common)]
        )

    def key_usage(**granted: bool) -> x509.KeyUsage:
        names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        other = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
        return x509.KeyUsage(**(dict.fromkeys((*names, *other), False) | granted))

    now, authority, signer = (
        datetime.now(UTC),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    common = x509.CertificateBuilder().issuer_name(name("authority"))
    common = common.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=30))
    of_authority = (
        common.subject_name(name("authority"))
        .public_key(authority.public_key())
        .serial_number(1)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    of_signer = (
        common.subject_name(name("signer"))
        .public_key(signer.public_key())
        .serial_number(2)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(signer.public_key()), critical=False)
    )
    if usage:
        of_signer = of_signer.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
    pem = serialization.Encoding.PEM
    chain, key = home / "chain.pem", home / "key.pem"
    chain.write_bytes(of_signer.sign(authority, hashes.SHA256()).public_bytes(pem) + of_authority.public_bytes(pem))
    key.write_bytes(signer.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return Credentials(chain, key)
