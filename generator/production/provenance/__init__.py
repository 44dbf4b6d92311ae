"""What a build says about itself: per-sample table, receipts, manifest, card, Croissant file, preview."""
