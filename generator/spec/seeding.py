"""Counter-based noise: the noise of a sample depends only on the seed, its index and its attempt.

Philox 4x64-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a 128-bit
key and a 256-bit counter into four 64-bit words. The key comes from the seed. The counter's four words are, lowest
first, (block, attempt, stream, domain). Each sample has a fixed range of blocks, so any batch that starts anywhere gets
the same words. Normals are computed by the inverse CDF: one word per normal. Rejection methods draw a varying number of
words, so a sample would depend on its neighbours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

WORDS_PER_BLOCK = 4
_DOMAIN_SAMPLES = 1
_DOMAIN_PERMUTATION = 2


@dataclass(frozen=True)
class Noise:
    """The randomness of B samples in D latent dimensions; row b belongs to one (index, attempt)."""

    choice_B: np.ndarray  # float64 in (0, 1): picks the cluster
    normal_BD: np.ndarray  # float64, standard normal, independent

    def __len__(self) -> int:
        return len(self.choice_B)


def noise(seed: int, indices_B: np.ndarray, attempts_B: np.ndarray, dims: int) -> Noise:
    """Noise for samples ``indices_B`` (int64, >= 0) at ``attempts_B`` (int64, >= 0), in ``dims`` dimensions.

    Each row is a pure function of (seed, index, attempt, dims), independent of batching, order and other rows.
    """
    from scipy.special import ndtri  # slow to import, and not needed by clients

    words_BW = _sample_words(seed, indices_B, attempts_B, 1 + dims)
    uniform_BW = _to_open_interval(words_BW)
    return Noise(choice_B=uniform_BW[:, 0].copy(), normal_BD=ndtri(np.ascontiguousarray(uniform_BW[:, 1:])))


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch of a virtual dataset, 0 .. 2**63 - 1: ``seed`` itself for epoch 0, else a digest of both."""
    if epoch == 0:
        return seed
    digest = hashlib.sha256(f"latentmill epoch 1\n{seed}\n{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def permutation(seed: int, *, stream: int, size: int) -> np.ndarray:
    """A permutation of ``0 .. size - 1`` (int64), a pure function of (seed, stream, size)."""
    words_N = _words(seed, block=0, attempt=0, stream=stream, domain=_DOMAIN_PERMUTATION, count=size)
    return np.argsort(words_N, kind="stable")


def _sample_words(seed: int, indices_B: np.ndarray, attempts_B: np.ndarray, words: int) -> np.ndarray:
    blocks = -(-words // WORDS_PER_BLOCK)
    out_BW = np.empty((len(indices_B), blocks * WORDS_PER_BLOCK), dtype=np.uint64)
    for begin, end in _index_ranges(indices_B, attempts_B):
        first, attempt = int(indices_B[begin]), int(attempts_B[begin])
        words_R = _words(
            seed,
            block=first * blocks,
            attempt=attempt,
            stream=0,
            domain=_DOMAIN_SAMPLES,
            count=(end - begin) * blocks * WORDS_PER_BLOCK,
        )
        out_BW[begin:end] = words_R.reshape(end - begin, -1)
    return out_BW[:, :words]


def _index_ranges(indices_B: np.ndarray, attempts_B: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of consecutive indices with the same attempt: each needs a single call of the generator."""
    if len(indices_B) == 0:
        return
    breaks = np.flatnonzero((np.diff(indices_B) != 1) | (np.diff(attempts_B) != 0)) + 1
    edges = [0, *breaks.tolist(), len(indices_B)]
    yield from pairwise(edges)


def _words(seed: int, *, block: int, attempt: int, stream: int, domain: int, count: int) -> np.ndarray:
    """``count`` words, starting at counter (block, attempt, stream, domain). Blocks stay far below 2**64."""
    key = hashlib.sha256(b"latentmill noise 1\n" + str(seed).encode()).digest()[:16]
    counter = block | attempt << 64 | stream << 128 | domain << 192
    return np.random.Philox(key=int.from_bytes(key, "little"), counter=counter).random_raw(count)


def _to_open_interval(words: np.ndarray) -> np.ndarray:
    """Words to float64 in the open interval (0, 1): 52 bits plus one half, so that 0 and 1 are never reached."""
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
