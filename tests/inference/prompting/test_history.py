from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.prompting.history import TRIM_TO, Exchange, ExchangeText, History, HistoryError, parse_history_text


class Words:
    """A format with one id per word; what it was asked to encode is counted."""

    def __init__(self) -> None:
        self.encoded: list[ExchangeText] = []
        self._ids: dict[str, int] = {}

    def ids(self, text: str) -> list[int]:
        return [self._ids.setdefault(word, len(self._ids) + 10) for word in text.split()]

    def encode_exchange(self, text: ExchangeText, *, first: bool) -> Exchange:
        self.encoded.append(text)
        return Exchange(text, self.ids(text.user or ""), self.ids(text.reply))

    def exchange_ids(self, exchange: Exchange, *, first: bool) -> list[int]:
        return [1 if first else 2, *exchange.user_ids, 3, *exchange.reply_ids]


def said(number: int, words: int = 3) -> ExchangeText:
    return ExchangeText(f"u{number} " * words, f"a{number} " * words)


def record(lines: Sequence[ExchangeText], max_tokens: int = 1000) -> tuple[History, Words]:
    """A record in which these were said, their ids generated: not what encoding their text would give."""
    form = Words()
    history = History(form, max_tokens)
    for number, line in enumerate(lines):
        history.append(Exchange(line, form.ids(line.user or ""), [1000 + number, 2000 + number]))
    return history, form


# -- history_text ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ()),
        ("\n \n", ()),
        ("User: a\nAssistant: b", (ExchangeText("a", "b"),)),
        ("user: a\nASSISTANT: b\nUSER:c", (ExchangeText("a", "b"), ExchangeText("c", ""))),
        ("  User: a\n\tAssistant:   b  ", (ExchangeText("a", "b"),)),
        ("User: a\nmore\n\n  indented\nAssistant: b\nc", (ExchangeText("a\nmore\n\n  indented", "b\nc"),)),
        ("Assistant: hi\nUser: a\nAssistant: b", (ExchangeText(None, "hi"), ExchangeText("a", "b"))),
        ("User: a\nUser: b\nAssistant: c\nAssistant: d", (ExchangeText("a\nb", "c\nd"),)),
        ("User: say User: no\nAssistant: b", (ExchangeText("say User: no", "b"),)),
        ("User:\nAssistant:", (ExchangeText("", ""),)),
        ("\n\nUser: a\r\nAssistant: b\r\n", (ExchangeText("a", "b"),)),
        ("User: a: b\nNote: c", (ExchangeText("a: b\nNote: c", ""),)),
    ],
)
def test_history_text(text: str, lines: tuple[ExchangeText, ...]) -> None:
    assert parse_history_text(text) == lines


@pytest.mark.parametrize("text", ["a", "Bob: a", "Users: a", "hello\nUser: a", "\n x"])
def test_history_text_must_begin_with_a_speaker(text: str) -> None:
    with pytest.raises(HistoryError):
        parse_history_text(text)


# -- the record ------------------------------------------------------------------------------------


def test_what_was_said_is_kept_as_ids_and_never_encoded() -> None:
    history, form = record([said(1), said(2)])
    assert history.ids == [1, *form.ids("u1 u1 u1"), 3, 1000, 2000, 2, *form.ids("u2 u2 u2"), 3, 1001, 2001]
    assert form.encoded == []


def test_a_record_only_grows_at_its_end() -> None:
    history, form = record([])
    before: list[int] = []
    for number in range(20):
        history.append(Exchange(said(number), form.ids("x"), [5]))
        assert history.ids[: len(before)] == before
        before = list(history.ids)


def test_a_full_record_drops_whole_old_exchanges_in_one_larger_step() -> None:
    history, form = record([])
    limit, size = 100, 8
    history.limit(limit)
    trims = 0
    for number in range(100):
        before = list(history.ids)
        history.append(Exchange(said(number), form.ids(said(number).user or ""), form.ids(said(number).reply)))
        assert len(history.ids) <= limit
        assert history.texts == tuple(said(n) for n in range(number + 1 - len(history), number + 1))
        if len(history.ids) < len(before):
            trims += 1
            assert TRIM_TO * limit - size < len(history.ids) <= TRIM_TO * limit
            assert history.ids[0] == 1
        else:
            assert history.ids[: len(before)] == before
    assert trims <= 100 / ((1 - TRIM_TO) * limit / size)  # the prefix holds for this many turns


def test_an_exchange_larger_than_the_record_leaves_it_empty() -> None:
    history, form = record([said(1), said(2)], 30)
    history.append(Exchange(said(3), form.ids("x " * 40), [1]))
    assert (history.ids, len(history)) == ([], 0)
    history.append(Exchange(said(4), form.ids("x"), [1]))
    assert history.texts == (said(4),)


def test_another_limit_trims_at_once() -> None:
    history, _ = record([said(n) for n in range(10)])
    history.limit(40)
    assert len(history.ids) <= 24
    assert history.texts[-1] == said(9)
    history.limit(0)
    assert len(history) == 0


# -- a client's own record -------------------------------------------------------------------------


def test_an_equal_history_changes_nothing() -> None:
    lines = [said(n) for n in range(5)]
    history, form = record(lines)
    before = list(history.ids)
    history.replace([ExchangeText(f" {line.user}\n", line.reply.replace(" ", "  ")) for line in lines])
    assert history.ids == before
    assert form.encoded == []


def test_only_what_differs_is_encoded() -> None:
    lines = [said(n) for n in range(5)]
    history, form = record(lines)
    before = list(history.ids)
    changed = ExchangeText(lines[4].user, "another answer")
    history.replace([*lines[:4], changed, said(7)])
    assert form.encoded == [said(7), changed]
    assert history.texts == (*lines[:4], changed, said(7))
    same = len(before) - len(form.exchange_ids(Exchange(lines[4], form.ids(lines[4].user or ""), [1, 2]), first=False))
    assert history.ids[:same] == before[:same]


def test_a_shorter_history_forgets_the_rest() -> None:
    lines = [said(n) for n in range(5)]
    history, form = record(lines)
    before = list(history.ids)
    history.replace(lines[:2])
    assert history.ids == before[: len(history.ids)]
    assert (history.texts, form.encoded) == (tuple(lines[:2]), [])
    history.replace([])
    assert (history.ids, len(history)) == ([], 0)


def test_a_history_that_lost_its_oldest_lines_keeps_the_ids_of_the_others() -> None:
    lines = [said(n) for n in range(5)]
    history, form = record(lines)
    history.replace(lines[2:])
    assert form.encoded == []
    assert history.texts == tuple(lines[2:])
    assert 1002 in history.ids


def test_after_a_trim_a_whole_history_still_matches() -> None:
    lines = [said(n) for n in range(30)]
    history, form = record(lines, 90)
    kept = history.texts
    before = list(history.ids)
    assert 0 < len(kept) < 30
    history.replace(lines)
    assert (history.ids, history.texts, form.encoded) == (before, kept, [])
    history.append(Exchange(said(30), [7], [8]))
    history.replace([*lines, said(30)])
    assert form.encoded == []
    assert history.ids[: len(before)] == before


def test_after_a_trim_a_history_that_repeats_itself_still_matches() -> None:
    lines = [said(n % 3) for n in range(30)]
    history, form = record(lines, 90)
    before = list(history.ids)
    history.replace(lines)
    assert (history.ids, form.encoded) == (before, [])


def test_a_new_history_after_a_trim_is_whole_again() -> None:
    history, _ = record([said(n) for n in range(30)], 90)
    other = [said(100 + n) for n in range(3)]
    history.replace(other)
    assert history.texts == tuple(other)
    history.replace([said(99), *other])  # not trimmed any more: an older line is news
    assert history.texts == (said(99), *other)


def test_a_long_history_is_trimmed_to_its_newest_lines() -> None:
    history, _ = record([], 100)
    history.replace([said(n) for n in range(50)])
    assert len(history.ids) <= TRIM_TO * 100
    assert history.texts == tuple(said(n) for n in range(50 - len(history), 50))


def test_of_a_history_that_cannot_fit_only_the_newest_lines_are_encoded() -> None:
    history, form = record([], 100)
    history.replace([said(n % 7) for n in range(100_000)])
    assert len(form.encoded) < 20
    begin = time.process_time()
    history.replace([said(n % 7) for n in range(100_000)])
    assert time.process_time() - begin < 3.0  # seconds; leaves room for a busy, slow processor


@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), max_size=12), st.integers(10, 120))
def test_replaced_by_anything_it_holds_the_newest_lines_of_it(ours: list[int], theirs: list[int], limit: int) -> None:
    history, _ = record([said(n) for n in ours], limit)
    lines = [said(n) for n in theirs]
    history.replace(lines)
    assert list(history.texts) == lines[len(lines) - len(history) :]
    assert len(history.ids) <= limit


# -- heard -----------------------------------------------------------------------------------------


def test_a_reply_is_cut_to_what_was_heard() -> None:
    history, form = record([said(1), ExchangeText("u", "one two three")])
    prefix = history.ids[: -len([1001, 2001])]
    history.cut_last_reply(7)
    assert history.texts[-1] == ExchangeText("u", "one two")
    assert history.ids == [*prefix, *form.ids("one two")]
    history.cut_last_reply(0)
    assert history.texts[-1] == ExchangeText("u", "")
    assert history.ids == prefix


def test_more_heard_than_said_changes_nothing() -> None:
    history, form = record([ExchangeText("u", "one two")])
    before = list(history.ids)
    for heard in (7, 8, 10**9):
        history.cut_last_reply(heard)
    assert (history.ids, form.encoded) == (before, [])
    empty, _ = record([])
    empty.cut_last_reply(0)
    assert empty.ids == []
