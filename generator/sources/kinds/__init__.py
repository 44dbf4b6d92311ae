"""One module for each kind of source: what is listed there, and in which order."""
