"""Converters: networks that were made elsewhere, as graphs. None runs foreign code or unpickles anything."""
