"""The metadata of a build: per-sample table, receipts, manifest, environment, card, Croissant file, preview."""
