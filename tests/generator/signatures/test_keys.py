"""Key files: made, read, and refused with the field that named them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from generator.errors import KeyFileError
from generator.signatures import PublicKey, make_key, read_private_key, read_public_key

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


def test_a_key_is_made_and_read_back(tmp_path: Path) -> None:
    public = make_key(tmp_path / "k")
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    private = read_private_key(tmp_path / "k")
    assert read_public_key(tmp_path / "k.pub") == private.public == public
    assert public.verifies(private.sign(b"words"), b"words")
    assert not public.verifies(private.sign(b"words"), b"other words")
    assert not public.verifies(bytes(64), b"words")
    assert private.sign(b"words") == private.sign(b"words")
    assert repr(private) == f"PrivateKey(of {public.id})"


def test_the_signature_is_that_of_rfc_8032(tmp_path: Path) -> None:
    """RFC 8032, 7.1, test 2."""
    secret = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    key = ed25519.Ed25519PrivateKey.from_private_bytes(secret)
    (tmp_path / "k").write_bytes(key.private_bytes(PEM, PKCS8, serialization.NoEncryption()))
    signed = read_private_key(tmp_path / "k").sign(b"\x72").hex()
    assert signed.startswith("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da")
    public = PublicKey(bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"))
    assert public.verifies(bytes.fromhex(signed), b"\x72")


def test_no_key_is_overwritten(tmp_path: Path) -> None:
    make_key(tmp_path / "k")
    before = (tmp_path / "k").read_bytes()
    with pytest.raises(KeyFileError, match=r"^make-key: expected a path that does not exist yet"):
        make_key(tmp_path / "k")
    (tmp_path / "k").rename(tmp_path / "kept")
    with pytest.raises(KeyFileError, match=r"k\.pub"):
        make_key(tmp_path / "k")
    assert (tmp_path / "kept").read_bytes() == before
    assert not (tmp_path / "k").exists()
    with pytest.raises(KeyFileError, match=r"^make-key: expected a path that can be written"):
        make_key(tmp_path / "missing" / "k")


def test_what_is_not_a_key_is_named(tmp_path: Path) -> None:
    make_key(tmp_path / "k")
    key = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "locked").write_bytes(key.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"x")))
    other = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ec").write_bytes(other.private_bytes(PEM, PKCS8, serialization.NoEncryption()))
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "ec.pub").write_bytes(other.public_key().public_bytes(PEM, info))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    private = {"k.pub": "a public key", "locked": "an encrypted key", "ec": "another kind", "empty": "something else"}
    public = {"k": "a private key", "ec.pub": "another kind", "empty": "something else"}
    common = {"none": "No such file", ".": "directory", "large": "more in"}
    for names, read in ((private | common, read_private_key), (public | common, read_public_key)):
        for name, words in names.items():
            with pytest.raises(KeyFileError, match=rf"^key: expected .*{words}"):
                read(tmp_path / name)


def test_openssl_reads_our_keys(tmp_path: Path) -> None:
    make_key(tmp_path / "k")
    try:
        done = subprocess.run(
            ["openssl", "pkey", "-in", tmp_path / "k", "-pubout"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("no openssl")
    assert done.stdout.strip() == (tmp_path / "k.pub").read_text().strip(), done.stderr
