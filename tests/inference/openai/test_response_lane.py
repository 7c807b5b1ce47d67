"""The order of one connection's responses."""

from __future__ import annotations

from inference.openai.response_lane import MAX_IN_FLIGHT, MAX_WAITING_CHARS, ResponseLane


def test_requests_run_one_after_another_in_their_order() -> None:
    lane: ResponseLane[str] = ResponseLane()
    for name in "abc":
        assert lane.push(name, 10)
    ran = []
    while (request := lane.take()) is not None:
        assert lane.take() is None
        ran.append(request)
        lane.finished()
    assert ran == ["a", "b", "c"]
    assert len(lane) == 0


def test_a_cancellation_stops_the_running_response_alone() -> None:
    lane: ResponseLane[str] = ResponseLane()
    lane.push("a", 1)
    lane.push("b", 1)
    assert lane.take() == "a"
    assert lane.started("resp_a")
    assert lane.cancel("resp_a")
    lane.finished()
    assert lane.take() == "b"
    assert lane.started("resp_b"), "the cancellation of a is not one of b"


def test_a_cancellation_that_comes_too_late_changes_nothing() -> None:
    lane: ResponseLane[str] = ResponseLane()
    assert not lane.cancel("resp_a")
    assert not lane.cancel(None)
    lane.push("b", 1)
    lane.take()
    assert not lane.cancel("resp_a")
    assert lane.started("resp_b")
    assert not lane.cancel("resp_a")
    assert lane.cancel("resp_b")


def test_a_cancellation_without_a_name_reaches_a_response_that_has_none_yet() -> None:
    lane: ResponseLane[str] = ResponseLane()
    lane.push("a", 1)
    lane.take()
    assert not lane.cancel(None), "nothing to stop yet"
    assert not lane.started("resp_a"), "cancelled before it began"


def test_requests_that_wait_are_bounded_in_number_and_in_size() -> None:
    lane: ResponseLane[int] = ResponseLane()
    lane.push(0, 1)
    lane.take()
    assert all(lane.push(number, 1) for number in range(1, MAX_IN_FLIGHT))
    assert not lane.push(99, 1)
    lane.finished()
    assert lane.push(99, 1)

    large: ResponseLane[int] = ResponseLane()
    assert large.push(1, MAX_WAITING_CHARS)
    assert not large.push(2, 1)
    assert large.take() == 1
    assert large.push(2, 1)
