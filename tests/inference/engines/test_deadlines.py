from __future__ import annotations

from inference.engines.base import PRIORITY_LIVE, PRIORITY_WARM
from inference.engines.deadlines import BLOCK_TOKENS, REMEMBERED_BLOCKS, DeadlinePriorities


class Clock:
    """Seconds, as told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def prompt(length: int, first: int = 0) -> list[int]:
    return list(range(first, first + length))


def test_who_comes_first_is_first() -> None:
    clock = Clock()
    deadlines = DeadlinePriorities(clock)
    first = deadlines.deadline_ms(prompt(40, 1), PRIORITY_LIVE)
    clock.now += 0.002
    assert first < deadlines.deadline_ms(prompt(40, 2), PRIORITY_LIVE)


def test_a_turn_of_a_running_conversation_goes_before_a_new_long_prompt() -> None:
    clock = Clock()
    deadlines = DeadlinePriorities(clock)
    said = prompt(1500)
    deadlines.deadline_ms(said, PRIORITY_LIVE)
    clock.now += 10
    long = deadlines.deadline_ms(prompt(1500, 7), PRIORITY_LIVE)
    clock.now += 0.1
    assert deadlines.deadline_ms([*said, *prompt(30, 9)], PRIORITY_LIVE) < long
    assert deadlines.deadline_ms(prompt(30, 9), PRIORITY_LIVE) < long


def test_a_long_prompt_waits_for_a_time_that_has_an_end() -> None:
    clock = Clock()
    deadlines = DeadlinePriorities(clock)
    long = deadlines.deadline_ms(prompt(2000), PRIORITY_LIVE)
    clock.now += 1.1
    assert long < deadlines.deadline_ms(prompt(10, 5), PRIORITY_LIVE)


def test_only_the_beginning_of_a_prompt_counts_as_known() -> None:
    clock = Clock()
    deadlines = DeadlinePriorities(clock)
    persona = prompt(8 * BLOCK_TOKENS)
    new = deadlines.deadline_ms(persona, PRIORITY_LIVE)
    shifted = deadlines.deadline_ms([99, *persona], PRIORITY_LIVE)  # the same ids, none where they were
    behind = deadlines.deadline_ms([*prompt(BLOCK_TOKENS, 5000), *persona[BLOCK_TOKENS:]], PRIORITY_LIVE)
    known = deadlines.deadline_ms(persona, PRIORITY_LIVE)
    assert known < new <= behind <= shifted


def test_live_turns_go_before_any_warm_up() -> None:
    clock = Clock()
    deadlines = DeadlinePriorities(clock)
    warm = deadlines.deadline_ms(prompt(10), PRIORITY_WARM)
    clock.now += 60
    assert deadlines.deadline_ms(prompt(8000, 3), PRIORITY_LIVE) < warm


def test_what_is_remembered_is_bounded_and_what_is_used_stays() -> None:
    clock = Clock()
    deadlines = DeadlinePriorities(clock)
    used = prompt(2 * BLOCK_TOKENS)
    new = deadlines.deadline_ms(used, PRIORITY_LIVE)
    for number in range(40):
        deadlines.deadline_ms(prompt(BLOCK_TOKENS * REMEMBERED_BLOCKS // 10, 10**9 * number), PRIORITY_LIVE)
        assert len(deadlines._blocks) <= REMEMBERED_BLOCKS
        assert deadlines.deadline_ms(used, PRIORITY_LIVE) < new
