"""Random numbers that are a function of (seed, names, index) alone.

A counter-based generator has no state to carry: the numbers of sample 7 are the same whether
samples 0 to 6 were drawn before, in one chunk, in another run, or never.
"""

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_WORDS_PER_BLOCK: Final = 4
_UNIT: Final = 2.0**-53


class Draw:
    """One stream of random numbers, `width` of them for each index."""

    def __init__(self, seed: int, *names: str, width: int) -> None:
        text = "\0".join((str(seed), *names)).encode()
        self._key = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
        self._width = width
        self._pairs = -(-width // 2)

    def uniforms(self, first: int, count: int) -> Floats:
        """Uniform numbers in (0, 1], shape (count, width)."""
        return self._uniforms(first, count, self._width)

    def normals(self, first: int, count: int) -> Floats:
        """Standard normal numbers (Box-Muller), shape (count, width)."""
        pairs = self._pairs
        uniform = self._uniforms(first, count, 2 * pairs)
        radius = np.sqrt(-2.0 * np.log(np.ascontiguousarray(uniform[:, :pairs])))
        angle = 2.0 * np.pi * np.ascontiguousarray(uniform[:, pairs:])
        return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)), axis=1)[
            :, : self._width
        ]

    def _uniforms(self, first: int, count: int, width: int) -> Floats:
        blocks = -(-width // _WORDS_PER_BLOCK)
        generator = np.random.Philox(key=self._key, counter=first * blocks)
        words = generator.random_raw(count * blocks * _WORDS_PER_BLOCK)
        table = words.reshape(count, blocks * _WORDS_PER_BLOCK)[:, :width]
        return ((table >> np.uint64(11)).astype(np.float64) + 1.0) * _UNIT
