"""Pixels to image files and back; every file says that it is synthetic."""

from generator.images.codec import decode_image, extension, image_encoder
from generator.images.encoder import ImageEncoder
from generator.images.marking import is_marked_synthetic, xmp_packet

__all__ = ["ImageEncoder", "decode_image", "extension", "image_encoder", "is_marked_synthetic", "xmp_packet"]
