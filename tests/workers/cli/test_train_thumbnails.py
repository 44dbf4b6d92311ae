"""``latentmill train --keep-thumbnails``: only then does a bundle hold pictures of the real images."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from generator.models.bundle import read_info
from generator.store import open_store
from workers.cli.main import root

_NETWORK = ("--size", "8", "--latent-dim", "4", "--width", "8")
TRAIN = ["train", "digits", *_NETWORK, "--epochs", "1", "--judges", "0", "--sampler", "gaussian", "--device", "cpu"]


@pytest.mark.slow
def test_a_bundle_holds_pictures_only_where_they_were_asked_for(tmp_path: Path) -> None:
    for name, options in (("plain", []), ("kept", ["--keep-thumbnails"])):
        done = CliRunner().invoke(root, [*TRAIN, *options, "--out", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        files = read_info(open_store(str(tmp_path / name)))[1].files
        assert ("thumbnails.safetensors" in files) == (name == "kept")
