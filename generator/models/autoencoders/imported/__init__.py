"""Imported decoders: their document, their layers, and their network."""
