"""In which order an engine begins what waits for it: whoever has the nearest deadline is next.

A request may wait a moment for each token of its prompt that has not been computed before. So a turn of a conversation
that runs, of which all but the last words is in the prefix cache, does not queue behind prompts that are long and new;
and those wait for a time that has an end, however many turns there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

GRAIN = 128  # tokens; a prompt is remembered in pieces of as many
REMEMBERED_PIECES = 8192  # a million tokens
PATIENCE_MS = 0.5  # for each new token
STEP_MS = 60_000  # for each step of a request's priority: a warm-up waits until nobody talks


class Deadlines:
    """Gives each request its deadline. Remembers what an engine was asked, not what it still has cached: a wrong guess
    costs a place in the queue and nothing else."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pieces: dict[int, None] = {}  # the most recently used last

    def of(self, prompt_ids: Sequence[int], priority: int) -> int:
        """Milliseconds on this clock; vLLM's ``priority``, of which the lowest is next. The prompt is remembered."""
        patience = PATIENCE_MS * self._new_tokens(prompt_ids) + STEP_MS * priority
        return int(1000 * self._clock() + patience)

    def _new_tokens(self, prompt_ids: Sequence[int]) -> int:
        """How much of the prompt is not the beginning of one that came before, to within a piece."""
        piece, known, growing = 0, 0, True
        for start in range(0, len(prompt_ids) - GRAIN + 1, GRAIN):
            piece = hash((piece, *prompt_ids[start : start + GRAIN]))
            growing = growing and piece in self._pieces
            known += GRAIN * growing
            self._pieces.pop(piece, None)
            self._pieces[piece] = None
        while len(self._pieces) > REMEMBERED_PIECES:
            del self._pieces[next(iter(self._pieces))]
        return len(prompt_ids) - known
