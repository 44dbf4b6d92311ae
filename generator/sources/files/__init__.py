"""The files of a source, wherever they lie: a directory, a pattern, an object store, an archive."""
