"""Features of the tool classifier: hashed n-grams of the last line and, under another prefix, of the lines before.

Character n-grams (2 to 4) and word n-grams (1 to 3) share one hashed space, as in scikit-learn's ``HashingVectorizer``.
Everything is vectorised: a line costs some hundred microseconds.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEATURE_VERSION = 1  # raised by every change of what this module computes; a head of another version is refused
DIMENSIONS = 1 << 17
