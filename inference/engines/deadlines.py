"""Earliest-deadline-first priorities for vLLM's scheduler (Liu and Layland, 1973).

deadline = now + 0.5 ms per prompt token that was not requested before. A turn of a running conversation is mostly in
the prefix cache, so it runs before long new prompts. The wait of a long prompt is bounded, because later deadlines
are always larger.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

BLOCK_TOKENS = 128  # a prompt is remembered in blocks of this size
REMEMBERED_BLOCKS = 8192  # a million tokens
DEADLINE_MS_PER_NEW_TOKEN = 0.5
DEADLINE_MS_PER_PRIORITY_LEVEL = 60_000  # a warm-up waits until no turn is queued


class Deadlines:
    """Assigns a deadline to each request.

    Remembers requested prompts, not the cache's contents: a wrong guess only costs a place in the queue.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._blocks: OrderedDict[int, None] = OrderedDict()  # hashes, the most recently used last

    def of(self, prompt_ids: Sequence[int], priority: int) -> int:
        """Compute the deadline of a request and remember its prompt.

        Args:
            prompt_ids: token ids of the whole prompt.
            priority: 0 for turns; each level above adds a minute.

        Returns:
            Milliseconds of the monotonic clock, as vLLM's `priority`: the lowest value runs first.
        """
        wait_ms = DEADLINE_MS_PER_NEW_TOKEN * self._new_tokens(prompt_ids) + DEADLINE_MS_PER_PRIORITY_LEVEL * priority
        return int(1000 * self._clock() + wait_ms)

    def _new_tokens(self, prompt_ids: Sequence[int]) -> int:
        """Count the prompt tokens that no earlier prompt began with, rounded up to whole blocks.

        Each block is hashed together with the hash of the block before, as in vLLM's prefix cache.
        """
        block_hash, known_tokens, known = 0, 0, True
        for start in range(0, len(prompt_ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            block_hash = hash((block_hash, *prompt_ids[start : start + BLOCK_TOKENS]))
            known = known and block_hash in self._blocks
            known_tokens += BLOCK_TOKENS * known
            self._blocks[block_hash] = None
            self._blocks.move_to_end(block_hash)
        while len(self._blocks) > REMEMBERED_BLOCKS:
            self._blocks.popitem(last=False)
        return len(prompt_ids) - known_tokens
