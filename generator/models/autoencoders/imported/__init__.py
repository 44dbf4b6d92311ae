"""Decoders that were made elsewhere: their description, their layers, the network of them."""
