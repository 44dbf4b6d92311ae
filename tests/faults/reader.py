"""A reader that polls a build while it is made, and records everything that it should not see.

``python -m tests.faults.reader`` reads one line of JSON: the URLs to open, the S3 settings, and the digest of all
samples. It polls until its input ends, and then prints its observations as JSON. It uses no proxy, so any error but
"no committed build here" is a finding.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from generator.datasets.torch_dataset import Sample, open_dataset
from generator.errors import DatasetError, LatentmillError
from generator.store import S3Settings

ROOT = Path(__file__).parents[2]
_PAUSE = 0.25  # seconds between two polls


def digest_of_samples(samples: Iterable[Sample]) -> str:
    """One digest of all pixels, labels and indices, in order."""
    digest = hashlib.sha256()
    for image, label, provenance in samples:
        digest.update(image.tobytes() + f"{image.shape}{label}{provenance['index']}".encode())
    return digest.hexdigest()


class ReaderProcess:
    """The reader as a process; ``stop`` ends it and returns its observations."""

    def __init__(self, urls: list[str], s3: S3Settings, digest: str) -> None:
        assert s3.access_key is not None
        assert s3.secret_key is not None
        secrets = {"access_key": s3.access_key.get_secret_value(), "secret_key": s3.secret_key.get_secret_value()}
        s3_fields = {"endpoint_url": s3.endpoint_url, "region": s3.region} | secrets
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.reader"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"urls": urls, "s3": s3_fields, "digest": digest}) + "\n")
        self._process.stdin.flush()

    def stop(self) -> dict[str, Any]:
        """End the reader; return its observations.

        ``absent`` and ``whole`` count the polls without and with a committed build, ``read`` the URLs under which all
        samples were read; ``findings`` should be empty.
        """
        output, _ = self._process.communicate(timeout=60)
        seen: dict[str, Any] = json.loads(output)
        return seen


def _poll(url: str, s3: S3Settings, digest: str, seen: dict[str, Any]) -> None:
    try:
        dataset = open_dataset(url, s3=s3)
    except DatasetError as absent:
        if seen["read"].get(url):
            seen["findings"].append(f"{url}: gone after it was there: {absent}")
        seen["absent"] += 1
        return
    seen["whole"] += 1
    if not seen["read"].get(url):
        if digest_of_samples(dataset) != digest:
            seen["findings"].append(f"{url}: other samples than those of the undisturbed build")
        seen["read"][url] = 1


def _main() -> None:
    request = json.loads(sys.stdin.readline())
    s3, ended = S3Settings.model_validate(request["s3"]), threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    seen: dict[str, Any] = {"absent": 0, "whole": 0, "read": {}, "findings": []}
    last = False
    while not last:
        last = ended.is_set()  # one more poll after the end
        for url in request["urls"]:
            try:
                _poll(url, s3, request["digest"], seen)
            except LatentmillError as error:
                seen["findings"].append(f"{url}: {type(error).__name__}: {error}"[:500])
        time.sleep(0.0 if last else _PAUSE)
    seen["read"] = sum(seen["read"].values())
    sys.stdout.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    _main()
