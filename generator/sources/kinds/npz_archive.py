"""Arrays in .npz and .npy files, read in blocks of rows. Nothing is unpickled.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, cast, final

import numpy as np
from numpy.lib import format as npy

from generator.errors import SourceError
from generator.sources.files.content import Content

_BLOCK_BYTES = 2**25
_MAX_ARRAY_BYTES = 2**40
_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class ArrayHeader:
    """Shape and type of an array that has not been read."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool


@final
class NumpyArrays:
    """The arrays of a file; each method opens it again. Methods raise ``SourceError`` that name file and array."""

    def __init__(self, content: Content, name: str, keys: tuple[str, ...], *, single: bool) -> None:
        self._content, self._name = content, name
        self.names = keys  # in the order of the archive
        self.single = single  # one array without a name

    def header(self, key: str) -> ArrayHeader:
        """Shape and type of an array."""
        with self._reading(key), self._stream(key) as stream:
            return _read_header(key, stream)

    def read(self, key: str) -> np.ndarray:
        """A whole array."""
        with self._reading(key), self._stream(key) as stream:
            return np.asarray(npy.read_array(cast(Any, stream), allow_pickle=False))

    def blocks(self, key: str) -> Iterator[np.ndarray]:
        """An array in blocks of rows of some 32 MiB; all at once if it is stored by columns."""
        with self._reading(key), self._stream(key) as stream:
            header = _read_header(key, stream)
            if header.fortran:
                with self._stream(key) as whole:
                    yield np.asarray(npy.read_array(cast(Any, whole), allow_pickle=False))
                return
            row_bytes = header.dtype.itemsize * int(np.prod(header.shape[1:], dtype=np.int64))
            step = max(1, _BLOCK_BYTES // max(1, row_bytes))
            for begin in range(0, header.shape[0], step):
                rows = min(step, header.shape[0] - begin)
                data = _read_exactly(stream, rows * row_bytes)
                yield np.frombuffer(data, dtype=header.dtype).reshape(rows, *header.shape[1:])

    @contextmanager
    def _stream(self, key: str) -> Iterator[IO[bytes]]:
        if key not in self.names:
            got = f"only {', '.join(self.names) or 'none'}"
            raise SourceError(f"{self._name}:{key}", f"an array of this name in {self._name}", got)
        with self._content.open() as file:
            if self.single:
                yield file
                return
            with zipfile.ZipFile(file) as archive, archive.open(f"{key}.npy") as member:
                yield member

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except SourceError:
            raise
        except Exception as error:  # on damaged bytes, zipfile and numpy raise exceptions of any type
            pickled = "pickle" in str(error) or "Object arrays" in str(error)
            got = "an array of objects (mixed shapes or channels?)" if pickled else f"one that does not read ({error})"
            raise SourceError(f"{self._name}:{key}", "a plain array", got) from error


def open_arrays(content: Content, name: str) -> NumpyArrays:
    """The arrays of a ``.npz`` archive, or the one of a ``.npy`` file. Raises ``SourceError`` that names ``name``."""
    try:
        if content.head(len(_MAGIC)) == _MAGIC:
            if name.lower().endswith(".npz"):
                raise SourceError(name, "a NumPy .npz archive", "a single array (.npy) with the suffix .npz")
            return NumpyArrays(content, name, ("array",), single=True)
        with content.open() as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except SourceError:
        raise
    except Exception as error:  # as in NumpyArrays
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SourceError(name, "a NumPy .npz archive", f"one that does not open ({reason})") from error
    keys = tuple(each.removesuffix(".npy") for each in names if each.endswith(".npy"))
    return NumpyArrays(content, name, keys, single=False)


def _read_header(key: str, stream: IO[bytes]) -> ArrayHeader:
    version = npy.read_magic(cast(Any, stream))
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(cast(Any, stream))
    if dtype.hasobject:
        raise ValueError("Object arrays are not read")
    size = dtype.itemsize * int(np.prod(shape, dtype=np.float64))
    if size > _MAX_ARRAY_BYTES or any(length < 0 for length in shape):
        raise ValueError(f"a shape of {shape}")
    return ArrayHeader(key, shape, dtype, fortran)


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = stream.read(size - len(data))
        if not part:
            raise ValueError("the array is cut short")
        data += part
    return bytes(data)
