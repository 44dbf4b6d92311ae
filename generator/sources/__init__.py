"""Sources of real images: ``load_source`` reads a source of any kind, ``split`` holds out a part of it."""

from generator.sources.base import Source
from generator.sources.load import load_source, source_kind
from generator.sources.split import Split, split

__all__ = ["Source", "source_kind", "load_source", "Split", "split"]
