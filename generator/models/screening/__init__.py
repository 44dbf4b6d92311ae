"""Screening of decoded images: the label check and the copy check."""
