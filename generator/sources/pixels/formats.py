"""Which files are images: by their ending and, where that says nothing, by their first bytes."""

from __future__ import annotations

import io

from PIL import Image

from generator.sources.files.file_set import SourceFile

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM", "JPEG2000", "TGA")
UNKNOWN_FORMATS = tuple(name for name in FORMATS if name != "TGA")  # TGA has no mark of its own
_ENDINGS = "png apng jpg jpeg jpe jfif mpo gif bmp dib tif tiff webp avif ppm pgm pbm pnm pfm jp2 j2k"
_UNREAD_ENDINGS = "heic heif"  # listed so that such photographs cause an error instead of being ignored
SUFFIXES_1 = frozenset(f".{ending}" for ending in f"{_ENDINGS} {_UNREAD_ENDINGS}".split())  # of the first rules
SUFFIXES = SUFFIXES_1 | {".tga"}

# Endings of files that are no images, or images that are not read: they are not opened to find out.
_OTHER_ENDINGS = (
    "txt csv tsv json jsonl xml yaml yml md rst html htm pdf doc docx xls xlsx py ipynb sh log cfg ini toml lock"
    " parquet arrow tar gz tgz bz2 xz zst lz4 zip 7z rar npz npy h5 hdf5 mat pkl pickle pt pth safetensors onnx bin"
    " mp4 avi mov mkv webm mp3 wav flac svg jxl psd eps ai ico icns exr hdr dcm dng cr2 cr3 nef arw raf orf rw2 dvc"
    " license gitattributes gitignore md5 sha256"
)
_OTHER_SUFFIXES = frozenset(f".{ending}" for ending in _OTHER_ENDINGS.split())
_HEAD = 4096
_POINTER = b"version https://git-lfs.github.com/spec/v1"
_POINTER_BYTES = 1024
_KINDS = {
    ".jxl": "JPEG XL images",
    ".svg": "SVG drawings",
    ".psd": "Photoshop files",
    ".eps": "EPS drawings",
    ".ico": "icons",
    ".dcm": "DICOM files",
    ".exr": "OpenEXR images",
    ".hdr": "Radiance images",
    ".mp4": "videos",
    ".avi": "videos",
    ".mov": "videos",
    ".mkv": "videos",
    ".webm": "videos",
    ".dvc": "DVC pointers",
} | {f".{ending}": "raw photographs" for ending in ["dng", "cr2", "cr3", "nef", "arw", "raf", "orf", "rw2"]}


def is_image(file: SourceFile) -> bool:
    """Whether a file is an image: by its ending or, for endings that say nothing, by its first bytes."""
    if file.suffix in SUFFIXES:
        return True
    if file.suffix in _OTHER_SUFFIXES or not file.size:
        return False
    try:
        return has_image_header(file.content.head(_HEAD))
    except OSError:
        return False


def has_image_header(head: bytes) -> bool:
    """Whether the first bytes of a file are those of an image format that is read."""
    try:
        with Image.open(io.BytesIO(head), formats=UNKNOWN_FORMATS):
            return True
    except Exception as error:  # on foreign bytes, Pillow's readers raise exceptions of any type
        return isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning))


def is_pointer(file: SourceFile) -> bool:
    """Whether a file is a Git LFS pointer in place of its content."""
    return is_pointer_head(file.content.head(len(_POINTER))) if 0 < file.size <= _POINTER_BYTES else False


def is_pointer_head(head: bytes) -> bool:
    """Whether bytes begin like a Git LFS pointer."""
    return head.startswith(_POINTER)


def kind_of(file: SourceFile) -> str:
    """How a file that is not read is counted: 'JPEG XL images', '.txt files', 'files without an ending'."""
    if file.suffix in _KINDS:
        return f"{_KINDS[file.suffix]} ({file.suffix})"
    return f"{file.suffix} files" if file.suffix else "files without an ending"
