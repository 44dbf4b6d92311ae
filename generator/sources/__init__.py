"""Sources of real images: ``load_source`` reads a source of any kind, ``split`` holds out a part of it."""

from generator.sources.base import Source, SourceFacts
from generator.sources.cache import PixelCache
from generator.sources.load import load_source, source_kind
from generator.sources.split import Split, split
from generator.spec.reading import Reading

__all__ = [
    "PixelCache",
    "Reading",
    "Source",
    "SourceFacts",
    "SourceOptions",
    "Split",
    "load_source",
    "source_kind",
    "split",
]
