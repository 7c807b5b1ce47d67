"""The number of examples of property tests: all of them, or a tenth in the fast suite."""

from __future__ import annotations

from typing import Any

import hypothesis

EXAMPLES = 100
"""Hypothesis' default number of examples, which the profile `few` divides by ten."""


def examples(number: int, **options: Any) -> hypothesis.settings:
    """Return settings of `number` examples, or of the loaded profile's share of them.

    Args:
        number: examples of a whole run (``scripts/test.sh``).
        options: further settings of Hypothesis.
    """
    share = hypothesis.settings().max_examples / EXAMPLES
    return hypothesis.settings(max_examples=max(1, round(number * share)), **options)
