"""Types of arguments that benchmarks share: places to write to, checked and made before any work begins."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def directory(text: str) -> Path:
    """The directory at ``text``, made if it is missing.

    Raises ``argparse.ArgumentTypeError``, which is shown as an error of usage.
    """
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as wrong:
        raise argparse.ArgumentTypeError(f"expected a directory, got {text!r} ({wrong.strerror})") from wrong
    if not os.access(path, os.W_OK):
        raise argparse.ArgumentTypeError(f"expected a directory that can be written, got {text!r}")
    return path


def output_file(text: str) -> Path:
    """A file to write, in a directory that is made if it is missing. Raises ``argparse.ArgumentTypeError``."""
    path = Path(text)
    directory(str(path.parent))
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file, got the directory {text!r}")
    return path
