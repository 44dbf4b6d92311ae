"""From the bytes of images to arrays of pixels of one size."""
