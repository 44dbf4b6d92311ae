"""Real images in: ``load_source`` reads any kind of source, ``split`` holds some of it out."""

from generator.sources.base import Source
from generator.sources.load import kind_of, load_source
from generator.sources.split import Split, split

__all__ = ["Source", "kind_of", "load_source", "Split", "split"]
