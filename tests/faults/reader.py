"""A reader that looks at a build again and again while it is made, and writes down whatever it should not have seen.

``python -m tests.faults.reader`` reads one line of JSON: the URLs to open, how S3 is reached, and the digest of all
samples. It polls until its input ends, and then prints what it saw as JSON. It meets no proxy: an error that is not
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
_PAUSE = 0.25  # seconds between two looks


def digest_of_samples(samples: Iterable[Sample]) -> str:
    """One digest of every pixel, label and index, in order."""
    whole = hashlib.sha256()
    for image, label, provenance in samples:
        whole.update(image.tobytes() + f"{image.shape}{label}{provenance['index']}".encode())
    return whole.hexdigest()


class ReaderProcess:
    """The reader as a process; ``stop`` ends it and gives what it saw."""

    def __init__(self, urls: list[str], s3: S3Settings, digest: str) -> None:
        assert s3.access_key is not None
        assert s3.secret_key is not None
        secrets = {"access_key": s3.access_key.get_secret_value(), "secret_key": s3.secret_key.get_secret_value()}
        reached = {"endpoint_url": s3.endpoint_url, "region": s3.region} | secrets
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.reader"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"urls": urls, "s3": reached, "digest": digest}) + "\n")
        self._process.stdin.flush()

    def stop(self) -> dict[str, Any]:
        """``absent`` and ``whole`` count looks; ``read`` counts whole readings; ``findings`` should be empty."""
        told, _ = self._process.communicate(timeout=60)
        seen: dict[str, Any] = json.loads(told)
        return seen


def _look(url: str, s3: S3Settings, digest: str, seen: dict[str, Any]) -> None:
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
    asked = json.loads(sys.stdin.readline())
    s3, ended = S3Settings.model_validate(asked["s3"]), threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    seen: dict[str, Any] = {"absent": 0, "whole": 0, "read": {}, "findings": []}
    last = False
    while not last:
        last = ended.is_set()  # one more look after the end
        for url in asked["urls"]:
            try:
                _look(url, s3, asked["digest"], seen)
            except LatentmillError as error:
                seen["findings"].append(f"{url}: {type(error).__name__}: {error}"[:500])
        time.sleep(0.0 if last else _PAUSE)
    seen["read"] = sum(seen["read"].values())
    sys.stdout.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    _main()
