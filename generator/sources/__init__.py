"""Real images in: ``load_source`` reads any kind of source, ``split`` holds some of it out."""

from generator.sources.base import Source
from generator.sources.load import load_source, source_kind
from generator.sources.split import Split, split

__all__ = ["Source", "source_kind", "load_source", "Split", "split"]
