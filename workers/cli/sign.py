"""The command that signs builds and bundles, and makes keys for it."""

from __future__ import annotations

from pathlib import Path

import click

from workers.cli.output import json_option, show


@click.command("sign")
@click.argument("target", required=False)
@click.option("--key", type=click.Path(path_type=Path), help="File of the private key (Ed25519, PEM).")
@click.option("--make-key", type=click.Path(path_type=Path), help="Make a key: this file, and the public key in .pub.")
@json_option
def sign_command(target: str | None, key: Path | None, make_key: Path | None, as_json: bool) -> None:
    """Sign TARGET, a committed build or a dataset (its build that readers get), or a bundle.

    The signature lies in signatures/ beside what it signs. It covers every byte, by the digests that the manifest (or
    bundle.json) holds; nothing is hashed again. `latentmill verify TARGET --key KEY.pub` checks it.
    """
    from generator.datasets.builds import find_build
    from generator.models.bundle.format import INFO_FILE
    from generator.models.bundle.load import read_info_bytes
    from generator.production.provenance.manifest import MANIFEST_KEY, MAX_MANIFEST_BYTES, parse_manifest
    from generator.signatures import make_key as write_key
    from generator.signatures import read_private_key, sign, signature_key
    from generator.store import open_store
    from workers.settings import load_settings

    if make_key is not None:
        if target is not None or key is not None:
            raise click.UsageError("--make-key stands alone: sign in a second step")
        public = write_key(make_key)
        show({"key": public.id, "private": str(make_key), "public": f"{make_key}.pub"}, as_json=as_json, title="made")
        return
    if target is None or key is None:
        raise click.UsageError("give TARGET and --key, or --make-key")
    private, s3 = read_private_key(key), load_settings().s3
    store = open_store(target, s3)
    if store.head(INFO_FILE) is not None:
        signature = sign(store, INFO_FILE, read_info_bytes(store), private)
    else:
        store = find_build(target, s3)
        data = store.get(MANIFEST_KEY, MAX_MANIFEST_BYTES)
        parse_manifest(data, store)
        signature = sign(store, MANIFEST_KEY, data, private)
    facts = {"signed": f"{store.url}/{signature.subject}", "digest": signature.digest, "key": signature.key}
    show(facts | {"signature": f"{store.url}/{signature_key(private.public)}"}, as_json=as_json, title="signed")
