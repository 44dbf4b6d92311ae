"""Image features from a classifier or an encoder, and exact nearest-neighbour search."""
