"""Shard formats, each with a writer and a reader. WebDataset tar is the default."""

from generator.production.shards.webdataset import (
    Member,
    TarWriter,
    first_file,
    read_sample,
    read_samples,
    sample_block,
    sample_places,
)

__all__ = ["Member", "TarWriter", "first_file", "read_sample", "read_samples", "sample_block", "sample_places"]
