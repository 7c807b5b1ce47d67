"""Earliest-deadline-first priorities for vLLM's waiting queue.

deadline = now + 0.5 ms for each prompt token that was not seen before. A turn of a running conversation, of which only
the last words are new, overtakes long new prompts; a long new prompt still has a deadline and cannot wait for ever.
Source: C. L. Liu and J. W. Layland, "Scheduling Algorithms for Multiprogramming in a Hard-Real-Time Environment",
Journal of the ACM 20 (1973). vLLM orders its queue by ``(priority, arrival_time)``, lowest first
(vllm/v1/core/sched/request_queue.py, ``PriorityRequestQueue``).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

BLOCK_TOKENS = 128  # a prompt is remembered in blocks of this many tokens
REMEMBERED_BLOCKS = 8192  # a million tokens
DEADLINE_MS_PER_NEW_TOKEN = 0.5
DEADLINE_MS_PER_PRIORITY_LEVEL = 60_000  # a warm-up waits until no turn waits


class DeadlinePriorities:
    """Computes the priority of each request of one engine.

    The object remembers which prompts the engine was asked, not which ones its cache still holds. A wrong guess costs a
    place in the queue and nothing else.

    Args:
        clock: returns seconds; any epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._blocks: OrderedDict[int, None] = OrderedDict()  # chained block hashes, the most recently used last

    def deadline_ms(self, prompt_ids: Sequence[int], priority: int, cache_salt: str | None = None) -> int:
        """Return the deadline of a request and remember its prompt.

        Args:
            prompt_ids: the prompt's token ids.
            priority: :data:`inference.engines.base.PRIORITY_LIVE` or ``PRIORITY_WARM``.
            cache_salt: the prompt's share of the prefix cache; prompts of different salts have no prefix in common.

        Returns:
            Milliseconds on the clock's own epoch: vLLM's ``priority``, lowest first.
        """
        wait_ms = DEADLINE_MS_PER_NEW_TOKEN * self._new_tokens(prompt_ids, cache_salt)
        return int(1000 * self._clock() + wait_ms + DEADLINE_MS_PER_PRIORITY_LEVEL * priority)

    def _new_tokens(self, prompt_ids: Sequence[int], cache_salt: str | None) -> int:
        """Count the tokens behind the longest prefix that an earlier prompt began with, to within a block."""
        block_hash, known, is_prefix = hash(cache_salt), 0, True
        for start in range(0, len(prompt_ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            block_hash = hash((block_hash, *prompt_ids[start : start + BLOCK_TOKENS]))
            is_prefix = is_prefix and block_hash in self._blocks
            known += BLOCK_TOKENS * is_prefix
            self._blocks[block_hash] = None
            self._blocks.move_to_end(block_hash)
        while len(self._blocks) > REMEMBERED_BLOCKS:
            self._blocks.popitem(last=False)
        return len(prompt_ids) - known
