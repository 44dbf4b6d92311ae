"""Reads an MDS build with mosaicml-streaming, for ``reading.py``; runs in the environment of ``make test-readers``.

    .venv-readers/bin/python benchmarks/reading_mosaicml.py DIRECTORY WORKERS

Reads the whole dataset, decoded, for each line on standard input, and answers with the number of samples.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "readers"))
from read_with import declare_torchvision_operators


def main() -> None:
    """Read as often as asked."""
    declare_torchvision_operators()
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    directory, workers = sys.argv[1], int(sys.argv[2])
    dataset = StreamingDataset(local=directory, batch_size=1, shuffle=False)
    for _ in sys.stdin:
        loader = DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=_decoded)
        print(sum(1 for _ in loader), flush=True)


def _decoded(row: dict[str, Any]) -> int:
    """Decode the image, and leave its pixels in the worker."""
    import numpy as np

    return int(np.asarray(row["image"].convert("RGB")).ndim)


if __name__ == "__main__":
    main()
