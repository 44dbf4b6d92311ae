"""Image encoders and decoding; every encoded file is marked as synthetic."""

from generator.production.images.codec import decode_image, extension, image_encoder
from generator.production.images.encoder import ImageEncoder
from generator.production.images.xmp import is_marked_synthetic, marked_build, xmp_packet

__all__ = [
    "ImageEncoder",
    "decode_image",
    "extension",
    "image_encoder",
    "is_marked_synthetic",
    "marked_build",
    "xmp_packet",
]
