"""Features of the tool classifier: hashed n-grams of the last line, and of the lines before it under their own prefix.

Character n-grams (2 to 4), word n-grams (1 and 2) and the first words once more share one hashed space, as in
scikit-learn's ``HashingVectorizer``; the signed hash is left out. Each of the two earlier lines has its own prefix, and
another one before a short last line, which they explain. The n-grams of a text are hashed by numpy in one pass, so
a line costs about a tenth of a millisecond.
"""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEATURE_VERSION = 2  # raise this with every change of the numbers below or of the code: older heads are then refused
DIMENSIONS = 1 << 18

MAX_LINE_CHARS = 1600  # of the last line: the first and the last half of this
MAX_EARLIER_CHARS = 300  # of each earlier line: its end
MAX_EARLIER_LINES = 2

CHARACTER_N = (2, 3, 4)
WORD_N = (1, 2)
WORD_WEIGHT = 1.5
LEAD_WORDS = 3  # the first words once more: "look at" at the start of a line is a request more often than inside it
LEAD_N = (1, 2, 3)
LEAD_WEIGHT = 0.7
EARLIER_WEIGHT = 0.3
SHORT_WORDS = 3  # a line of at most this many words ("and now?") means little without the lines before it
SHORT_EARLIER_WEIGHT = 1.0

_REPEATS = re.compile(r"(.)\1{2,}")
_DIGIT = re.compile(r"\d")
_WORD = re.compile(r"\w+(?:'\w+)?|[^\w\s]")

_PRIME = np.uint64(0x100000001B3)  # FNV-1a, 64 bits
_MIX = np.uint64(0xBF58476D1CE4E5B9)  # splitmix64's first multiplier: FNV's low bits alone are weak
_GOLDEN = 0x9E3779B97F4A7C15
_LINE_START, _LINE_END = "\x02", "\x03"

Indices = NDArray[np.int64]
Values = NDArray[np.float64]


def normalize(text: str) -> str:
    """The form of a text that the n-grams are taken from.

    Case, accents, widths, runs of blanks, letters repeated more than twice and the value of digits are removed.
    """
    text = text.casefold()
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        text = "".join(character for character in text if not "\u0300" <= character <= "\u036f").replace("’", "'")
    return " ".join(_DIGIT.sub("0", _REPEATS.sub(r"\1\1", text)).split())


def features(text: str, earlier: Sequence[str] = ()) -> tuple[Indices, Values]:
    """Compute the sparse features of one line.

    Args:
        text: the line to decide on.
        earlier: the lines before it, oldest first, without their speakers' labels.

    Returns:
        Indices below :data:`DIMENSIONS` and values, each of shape (features,). An index may occur more than once; its
        values add up.
    """
    line = normalize(_both_ends(text))
    blocks = [
        _block(_character_hashes(line, CHARACTER_N, seed=1), 1.0),
        _block(_word_hashes(line, WORD_N, seed=2), WORD_WEIGHT),
        _block(_word_hashes(" ".join(_WORD.findall(line)[:LEAD_WORDS]), LEAD_N, seed=3), LEAD_WEIGHT),
    ]
    short = len(line.split()) <= SHORT_WORDS
    weight = SHORT_EARLIER_WEIGHT if short else EARLIER_WEIGHT
    for position, before in enumerate(reversed(earlier[-MAX_EARLIER_LINES:])):
        before = normalize(before[-MAX_EARLIER_CHARS:])
        seed = 11 + 20 * position + 10 * short
        blocks.append(_block(_character_hashes(before, CHARACTER_N, seed), weight))
        blocks.append(_block(_word_hashes(before, WORD_N, seed + 1), weight))
    return np.concatenate([indices for indices, _ in blocks]), np.concatenate([values for _, values in blocks])


def _both_ends(text: str) -> str:
    half = MAX_LINE_CHARS // 2
    return text if len(text) <= MAX_LINE_CHARS else f"{text[:half]} {text[-half:]}"


def _block(hashes: NDArray[np.uint64], weight: float) -> tuple[Indices, Values]:
    """Every n-gram counts the same; the norm is ``weight`` where no n-gram occurs twice."""
    indices = (hashes & np.uint64(DIMENSIONS - 1)).astype(np.int64)
    return indices, np.full(len(indices), weight / math.sqrt(len(indices)))


def _character_hashes(text: str, sizes: Sequence[int], seed: int) -> NDArray[np.uint64]:
    codes = np.frombuffer(f"{_LINE_START} {text} {_LINE_END}".encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return _grams(codes.astype(np.uint64), sizes, seed)


def _word_hashes(text: str, sizes: Sequence[int], seed: int) -> NDArray[np.uint64]:
    words = [_LINE_START, *_WORD.findall(text), _LINE_END]
    codes = np.fromiter((zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words), np.uint64, len(words))
    return _grams(codes, sizes, seed)


def _finish(mixed: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _MIX
    return mixed ^ (mixed >> np.uint64(32))


def _grams(codes: NDArray[np.uint64], sizes: Sequence[int], seed: int) -> NDArray[np.uint64]:
    """A 64-bit hash of every run of ``sizes`` codes; shape (n-grams,)."""
    hashes = []
    for size in sizes:
        count = len(codes) - size + 1
        if count <= 0:
            continue
        start = ((seed << 8) + size) * _GOLDEN % (1 << 64)
        mixed = np.full(count, start, dtype=np.uint64)
        for offset in range(size):
            mixed = (mixed ^ codes[offset : offset + count]) * _PRIME
        hashes.append(_finish(mixed))
    return np.concatenate(hashes)
