from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from accounts.callers import Window
from accounts.limits import RollingWindow


def test_as_many_as_allowed_and_then_the_time_to_wait() -> None:
    window = RollingWindow(Window(2, 10.0))
    assert [window.take(now) for now in (0.0, 4.0)] == [0.0, 0.0]
    assert window.take(5.0) == 5.0
    assert window.take(10.0) == 0.0
    assert window.take(11.0) == 3.0


def test_refused_events_take_no_slot() -> None:
    window = RollingWindow(Window(1, 10.0))
    assert window.take(0.0) == 0.0
    assert all(window.take(now / 10) > 0 for now in range(1, 100))
    assert window.take(10.0) == 0.0


def test_a_slot_given_back_is_free_at_once() -> None:
    window = RollingWindow(Window(1, 10.0))
    window.give_back()
    assert window.take(0.0) == 0.0
    window.give_back()
    assert window.take(0.0) == 0.0
    assert window.take(0.0) == 10.0


def test_zero_switches_off() -> None:
    for off in (Window(0, 10.0), Window(1, 0.0)):
        window = RollingWindow(off)
        assert [window.take(0.0) for _ in range(100)] == [0.0] * 100


def test_a_changed_limit_governs_the_next_event() -> None:
    window = RollingWindow(Window(5, 10.0))
    for now in range(4):
        assert window.take(now) == 0.0
    window.window = Window(2, 10.0)
    assert window.take(4.0) == 8.0  # the third of the four has to fall out, at 12
    window.window = Window(5, 10.0)
    assert window.take(4.0) == 0.0
    window.window = Window(0, 10.0)
    assert window.take(4.0) == 0.0


@given(limit=st.integers(1, 5), seconds=st.integers(1, 10), steps=st.lists(st.integers(0, 4), max_size=60))
def test_never_more_than_the_limit_in_any_window_and_the_wait_is_exact(
    limit: int, seconds: int, steps: list[int]
) -> None:
    window, now, taken = RollingWindow(Window(limit, seconds)), 0, list[int]()
    for step in steps:
        now += step
        wait = window.take(now)
        if wait == 0.0:
            taken.append(now)
        else:
            inside = [then for then in taken if then > now + wait - seconds]
            assert len(inside) < limit  # after the wait there is room
            assert len([then for then in taken if then > now - seconds]) >= limit  # and there was none before
    for end in taken:
        assert len([then for then in taken if end - seconds < then <= end]) <= limit
