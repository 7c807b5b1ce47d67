"""Thoughts are held out of a reply, however the engine divides it into deltas."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference.prompting.thought_tags import THOUGHT_TAGS
from inference.thoughts import ThoughtFilter


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def run(*deltas: str) -> tuple[str, list[int], ThoughtFilter]:
    """Feed deltas with one token a character; return the visible text, its ids, and the filter."""
    thoughts = ThoughtFilter(encode, encode)
    text = ""
    ids: list[int] = []
    for delta in deltas:
        more, more_ids = thoughts.feed(delta, encode(delta))
        text, ids = text + more, ids + more_ids
    more, more_ids = thoughts.finish()
    return text + more, ids + more_ids, thoughts


@pytest.mark.parametrize(
    ("generated", "visible"),
    [
        ("Hello there.", "Hello there."),
        ("<think>\nThe user greets.\n</think>\n\nHello!", "Hello!"),
        ("<think></think>Hello", "Hello"),
        ("\n<think>\n\n</think>\n\nHello", "Hello"),
        ("Hello <think>hm</think> there", "Hello there"),
        ("<think>a</think> one <think>b</think>\ntwo", "one two"),
        ("<think>never closed", ""),
        ("", ""),
        ("  leading blanks", "  leading blanks"),
        ("\n\n", "\n\n"),
        ("a <3 b < c [x] <b>bold</b> <thin", "a <3 b < c [x] <b>bold</b> <thin"),
        ("<", "<"),
        ("</think>\n\nHello", "Hello"),
        ("[THINK]I wonder[/THINK]Well.", "Well."),
        ("<thought>\nI wonder\n</thought>\nWell.", "Well."),
        ("<seed:think>x</seed:think>y", "y"),
        ("◁think▷x◁/think▷y", "y"),
        ("<think>a [THINK] b </thought> c</think>d", "d"),
        ("<think><think>a</think>b", "b"),
    ],
)
def test_thoughts_are_not_visible(generated: str, visible: str) -> None:
    assert run(generated)[0] == visible
    assert run(*generated)[0] == visible


PIECES = st.sampled_from(
    ["a", " ", "\n", "<", "</", "<think", "think>", "<b>", "[", *(t.opening for t in THOUGHT_TAGS)]
    + [t.closing for t in THOUGHT_TAGS]
)


@given(st.lists(PIECES, max_size=9).map("".join), st.data())
@example("\n<think>a</think>\n\nb", None)
def test_the_result_does_not_depend_on_the_deltas(generated: str, data: st.DataObject | None) -> None:
    whole, ids, thoughts = run(generated)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(generated)), max_size=6))) if data else [1, 3]
    deltas = [generated[a:b] for a, b in zip([0, *cuts], [*cuts, len(generated)], strict=True)]
    again, ids_again, other = run(*deltas)
    assert again == whole
    assert ids == ids_again == encode(whole)
    assert thoughts.reasoning_tokens == other.reasoning_tokens == len(generated) - len(whole)
    assert not any(tag.opening in whole for tag in THOUGHT_TAGS) or "<think" in generated


def test_nothing_is_held_where_no_mark_can_begin() -> None:
    thoughts = ThoughtFilter(encode, encode)
    assert thoughts.feed("Hello", [1]) == ("Hello", [1])
    assert thoughts.feed(" there <", [2, 3])[0] == " there "
    assert thoughts.feed("3", [4]) == ("<3", [60, 4])
    assert thoughts.reasoning_tokens == 0


def test_ids_stay_as_generated_where_a_delta_is_all_text() -> None:
    thoughts = ThoughtFilter(encode, encode)
    assert thoughts.feed("<think>", [900]) == ("", [])
    assert thoughts.thinking
    assert thoughts.feed("hm", [901, 902]) == ("", [])
    assert thoughts.feed("</think>", [903]) == ("", [])
    assert thoughts.feed("\n\n", [904]) == ("", [])
    assert thoughts.closing == ""
    assert thoughts.feed("Hello", [905]) == ("Hello", [905])
    assert thoughts.prefix_ids == [900, 901, 902, 903, 904]
    assert thoughts.reasoning_tokens == 5
    assert thoughts.feed(" you", [906]) == (" you", [906])
    assert thoughts.reasoning_tokens == 5


def test_a_token_without_text_belongs_to_the_text_around_it() -> None:
    thoughts = ThoughtFilter(encode, encode)
    assert thoughts.feed("a", [1]) == ("a", [1])
    assert thoughts.feed("", [2]) == ("", [2])
    assert thoughts.feed("<", [3]) == ("", [])
    assert thoughts.feed("", [4]) == ("", [])
    assert thoughts.feed("b", [5]) == ("<b", [3, 4, 5])


def test_thoughts_that_take_too_long_are_closed_by_the_caller() -> None:
    thoughts = ThoughtFilter(encode, encode)
    for text, ids in (("<think>", [1]), ("so much", [2, 3]), (" to say </th", [4])):
        assert thoughts.feed(text, ids) == ("", [])
    assert thoughts.thinking
    assert thoughts.closing == "</think>"
    assert thoughts.reasoning_tokens == 4
    thoughts.close_thoughts()
    assert thoughts.closing == ""
    assert thoughts.feed("\n\nHello", [5]) == ("Hello", encode("Hello"))
    # The caller's next request begins behind them; a token that was taken apart is spelled again.
    assert thoughts.prefix_ids[:3] == [1, 2, 3]
    assert thoughts.prefix_ids[3:] == encode(" to say </th</think>\n\n\n\n")


def test_held_text_is_part_of_the_next_request_or_is_dropped() -> None:
    thoughts = ThoughtFilter(encode, encode)
    assert thoughts.feed("I", [1]) == ("I", [1])
    assert thoughts.feed(" <", [2]) == (" ", [32])
    assert thoughts.held_ids == [60]
    thoughts.drop_held()
    assert thoughts.held_ids == []
    assert thoughts.feed("3", [3]) == ("3", [3])
    assert thoughts.reasoning_tokens == 0


def test_thoughts_in_the_middle_of_a_reply_are_left_out() -> None:
    thoughts = ThoughtFilter(encode, encode)
    assert thoughts.feed("Hello", [1]) == ("Hello", [1])
    assert thoughts.feed("<think>", [2]) == ("", [])
    thoughts.feed("so much", [3])
    thoughts.close_thoughts()
    assert thoughts.prefix_ids == thoughts.held_ids == []
    assert thoughts.feed(" you", [4]) == ("you", encode("you"))
