"""How fast this machine makes images, and what the limit is. Imports nothing here: ``suggestion`` needs no torch."""
