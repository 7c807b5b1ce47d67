from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from inference.phrases.automaton import Kind, Matcher
from inference.phrases.guard import Hit, PhraseAutomaton, PhraseGuard
from inference.phrases.stops import text_stops
from inference.phrases.units import FOLDED
from personas.snapshot import PhraseRule

BUILT_IN = [
    "*winks*", "*winks*.", "*smirks*", "*giggles*", "*purrs*", "*blushes*", ":)", ";)", ":D", ":(", ":P", "Oh honey",
    "Oh, honey", "Oh honey...", "Well honey", "Well honey,", "Well, well", "Well well", "Well, well, well",
    "Well, well!", "what's really on your mind?", "Now let's talk about", "~", " - ",
]  # fmt: skip


def guard(*phrases: str | PhraseRule, matchers: Sequence[Matcher] = (), stops: Sequence[str] = ()) -> PhraseGuard:
    rules = [phrase if isinstance(phrase, PhraseRule) else PhraseRule(phrase) for phrase in phrases]
    return PhraseGuard(PhraseAutomaton.build(rules), [*matchers, *([text_stops(stops)] if stops else [])])


def whole(text: str, case_sensitive: bool = False) -> PhraseRule:
    return PhraseRule(text, whole_word=True, case_sensitive=case_sensitive)


def released(subject: PhraseGuard, text: str) -> str:
    out, hit = subject.feed(text)
    assert hit is None
    return out


def hit_in(subject: PhraseGuard, text: str) -> Hit | None:
    _, hit = subject.feed(text)
    return hit or subject.finish()[1]


def through(subject: PhraseGuard, chunks: Sequence[str]) -> Iterator[tuple[str, Hit | None]]:
    """Feed all, cut every phrase, stop at a stop: (text that left, hit) as it happens."""
    for step in [*chunks, None]:
        out, hit = subject.finish() if step is None else subject.feed(step)
        yield out, hit
        while hit is not None and not hit.stop:
            out, hit = subject.skip()
            yield out, hit
        if hit is not None:
            return


# --- what is promised, case by case


def test_text_that_starts_nothing_leaves_at_once() -> None:
    subject = guard("Oh honey", "*winks*")
    assert [released(subject, text) for text in ("He", "llo there", ", you")] == ["He", "llo there", ", you"]
    assert subject.held_from == subject.position == 16


def test_the_example_of_the_module() -> None:
    for ending in ("rewind", "skip"):
        subject = guard("Oh honey", "honeymoon")
        assert subject.feed("Well, oh") == ("Well, ", None)
        assert subject.feed(" hon") == ("", None)
        assert (subject.held_from, subject.position) == (6, 12)
        assert subject.feed("eymoon?") == ("", Hit(6, 14, "Oh honey"))
        if ending == "rewind":
            subject.rewind()
            assert subject.position == 6
        else:
            assert subject.skip() == ("moon?", None)
            assert subject.position == 19


def test_only_a_live_partial_match_is_held_and_goes_when_it_dies() -> None:
    subject = guard("Oh honey")
    assert released(subject, "So: oh ho") == "So: "
    assert (subject.held_from, subject.position, subject.pending) == (4, 9, "oh ho")
    assert released(subject, "t") == "oh hot"
    assert subject.held_from == subject.position == 10


def test_a_phrase_is_found_across_chunks_and_in_any_case() -> None:
    subject = guard("Oh honey")
    assert released(subject, "Well, oH") == "Well, "
    assert subject.feed(" HONEY, no") == ("", Hit(6, 14, "Oh honey"))


def test_rewind_forgets_the_phrase_and_goes_on_at_its_start() -> None:
    subject = guard("Oh honey")
    assert subject.feed("Well, oh honey, what")[0] == "Well, "
    subject.rewind()
    assert (subject.position, subject.held_from) == (6, 6)
    assert released(subject, "dear") == "dear"
    assert subject.finish() == ("", None)


def test_rewind_can_go_further_back_to_a_token_that_was_withheld() -> None:
    subject = guard("honey")
    assert subject.feed("Oh honey")[0] == "Oh "
    subject.rewind(2)
    assert (subject.position, subject.held_from) == (2, 2)
    assert released(subject, " dear ho") == " dear "
    assert subject.held_from == 8


def test_skip_cuts_the_phrase_and_coordinates_count_it() -> None:
    subject = guard("honey")
    assert subject.feed("Oh honey, hi")[0] == "Oh "
    assert subject.skip() == (", hi", None)
    assert subject.held_from == subject.position == 12
    assert released(subject, " ho") == " "
    assert (subject.position, subject.held_from, subject.pending) == (15, 13, "ho")


def test_text_around_a_cut_does_not_close_to_a_phrase() -> None:
    subject = guard("ab", "X")
    assert "".join(out for out, _ in through(subject, ["aX", "b"])) == "a"


def test_text_fed_while_a_hit_is_open_is_looked_at_after_the_cut() -> None:
    subject = guard("ab")
    _, hit = subject.feed("ab ")
    assert hit is not None
    assert subject.feed("c a") == ("", hit)
    assert subject.skip() == ("c ", None)
    assert subject.pending == "a"


def test_the_earliest_start_wins_over_the_first_to_complete() -> None:
    subject = guard("well, well!", "ll")
    assert released(subject, "well, we") == ""
    assert subject.feed("ll!")[1] == Hit(0, 11, "well, well!")
    assert guard("well, well!", "l,").feed("well, x")[1] == Hit(4, 5, "l,")


def test_the_first_letter_of_a_phrase_inside_a_word_leaves_with_the_word() -> None:
    subject = guard("Oh honey", "now then")
    pieces = ["Hello", " to", " you, and", " in"]
    assert [released(subject, text) for text in pieces] == pieces
    assert released(subject, "ow") == ""
    assert subject.feed(" then.")[1] == Hit(20, 27, "now then")
    subject.rewind()
    assert released(subject, " the pooh") == " the poo"
    assert subject.feed(" honey")[1] is None
    assert subject.feed(".")[1] == Hit(28, 35, "Oh honey")


@pytest.mark.parametrize("text", ["x o", "1o", "-o", "éo", "文o"])
def test_the_first_letter_of_a_phrase_is_held_outside_of_a_word(text: str) -> None:
    assert released(guard("Oh honey"), text) == text[:-1]


@pytest.mark.parametrize(("phrase", "text", "left"), [("好朋友", "你好", "你"), ("né", "an", "an"), ("ñu", "an", "a")])
def test_letters_beyond_ascii_and_letters_with_marks_are_held_inside_of_words(
    phrase: str, text: str, left: str
) -> None:
    assert released(guard(phrase), text) == left


def test_of_one_start_the_first_to_complete_wins() -> None:
    assert guard("Oh honey...", "Oh honey").feed("oh honey...")[1] == Hit(0, 8, "Oh honey")


@pytest.mark.parametrize(
    ("phrase", "text", "span"),
    [
        ("strasse", "die Straße", (4, 10)),
        ("Straße", "STRASSE", (0, 7)),
        ("as", "xaß", (2, 3)),  # ends inside an expansion
        ("sa", "ßa", (0, 2)),  # starts inside one
        ("s", "aß", (1, 2)),
        ("i̇x", "aİX", (1, 3)),
        ("İ", "i̇", (0, 2)),
        ("ﬃ", "ooffi", (3, 5)),
        ("σας", "ΣΑΣ", (0, 3)),
        ("what's", "What’s", (0, 6)),
        ("what’s", "whatʼs", (0, 6)),
        ('"no"', "“No”", (0, 4)),
        ("😀😃", "x😀😃", (1, 3)),
        ("𐐀", "𐐨", (0, 1)),
        ("e\u0301", "xE\u0301", (1, 3)),
        ("k", "\N{KELVIN SIGN}", (0, 1)),
    ],
)
def test_folding_covers_whole_characters(phrase: str, text: str, span: tuple[int, int]) -> None:
    for size in (1, len(text)):
        subject = guard(phrase)
        hits = [subject.feed(text[at : at + size])[1] for at in range(0, len(text), size)] + [subject.finish()[1]]
        assert [(hit.start, hit.end) for hit in hits if hit][:1] == [span]


def test_an_expansion_before_a_phrase_does_not_shift_it() -> None:
    subject = guard("honey")
    assert released(subject, "ßßİ ") == "ßßİ "
    assert subject.feed("ß honey.")[1] == Hit(6, 11, "honey")
    subject.rewind()
    assert subject.feed("ß honey.")[1] == Hit(8, 13, "honey")


def test_a_case_sensitive_phrase_takes_its_own_case_and_any_quotes() -> None:
    rule = PhraseRule("It's Me", case_sensitive=True)
    assert hit_in(guard(rule), "It’s Me") == Hit(0, 7, "It's Me")
    subject = guard(rule)
    assert released(subject, "it's me") == "it's me"
    assert released(subject, " I") == " "
    assert released(subject, "T") == "IT"


@pytest.mark.parametrize("text", ["ohm", "zoho oh_", "_oh", "oh\u0301", "e\u0301oh", "oh1", "(ohh)"])
def test_a_whole_word_is_not_found_inside_a_word(text: str) -> None:
    assert "".join(out for out, _ in through(guard(whole("oh")), [text])) == text


@pytest.mark.parametrize("text", ["oh", "oh!", "(OH)", "oh oho", "oh's", "\u0301oh", "-\u0301oh", "❤\ufe0foh", "oh\nx"])
def test_a_whole_word_is_found_between_boundaries(text: str) -> None:
    hit = hit_in(guard(whole("oh")), text)
    assert hit is not None
    assert FOLDED.units(text[hit.start : hit.end]) == "oh"


def test_a_whole_word_waits_for_one_character_and_never_starts_inside_a_word() -> None:
    subject = guard(whole("oh"))
    assert released(subject, "xo") == "xo"
    assert released(subject, " oh") == " "
    assert subject.feed("!")[1] == Hit(3, 5, "oh")


def test_a_refuted_whole_word_is_held_while_the_text_may_go_back_to_its_end() -> None:
    subject = guard(whole("oh"), "1y dear")
    assert released(subject, "oh1y") == ""
    assert subject.feed(" dear,")[1] == Hit(2, 9, "1y dear")
    subject.rewind()
    assert subject.finish()[1] == Hit(0, 2, "oh")
    subject.rewind()
    assert subject.finish() == ("", None)


def test_a_refuted_whole_word_is_held_for_a_later_start_than_the_earliest_live_one() -> None:
    subject = guard(whole("oh"), "h1y x", "1y dear")
    assert [released(subject, text) for text in ("oh1y", " d")] == ["", ""]
    assert subject.feed("ear,")[1] == Hit(2, 9, "1y dear")
    subject.rewind()
    assert subject.finish()[1] == Hit(0, 2, "oh")


def test_refuted_whole_words_in_a_row_are_held_over_a_rewind() -> None:
    subject = guard(whole("aaa-"), whole("bbb"), "1 d")
    assert released(subject, "aaa-bbb1") == ""
    assert subject.feed(" d.")[1] == Hit(7, 10, "1 d")
    subject.rewind()
    assert released(subject, "1") == ""
    assert subject.feed(" d.")[1] == Hit(7, 10, "1 d")
    for start, end, phrase in ((4, 7, "bbb"), (0, 4, "aaa-")):
        subject.rewind()
        assert subject.finish()[1] == Hit(start, end, phrase)


def test_safe_end_keeps_a_whole_word_from_standing_at_the_end_of_what_is_shown() -> None:
    subject = guard(whole("oh"), "2 dear")
    assert released(subject, "ah ohm2") == "ah ohm"
    assert subject.safe_end(5) == 3
    assert subject.safe_end(4) == 4
    assert guard("y dear").safe_end(0) == 0


def test_a_text_stop_ends_the_reply_before_it_in_its_own_case() -> None:
    subject = guard(stops=["<END>"])
    assert released(subject, "a <end> b <E") == "a <end> b "
    assert subject.feed("ND>!") == ("", Hit(10, 15, "<END>", Kind.STOP))


def test_a_ban_before_a_stop_still_counts_and_one_behind_it_does_not() -> None:
    assert guard("ban", stops=["###"]).feed("ban###")[1] == Hit(0, 3, "ban")
    assert guard("ban", stops=["###"]).feed("###ban")[1] == Hit(0, 3, "###", Kind.STOP)


def test_the_end_that_a_stop_makes_is_a_word_boundary() -> None:
    subject = guard(whole("cinde"), stops=["rella"])
    assert subject.feed("cinderella") == ("", Hit(0, 5, "cinde"))
    assert subject.skip() == ("", Hit(5, 10, "rella", Kind.STOP))


def test_token_biases_are_not_bans() -> None:
    assert PhraseAutomaton.build([PhraseRule("the", bias=-99.0)]).matchers == ()
    assert guard(PhraseRule("the", bias=-99.0)).feed("the") == ("the", None)
    assert guard(PhraseRule("the", bias=-150.0)).feed("the ")[1] == Hit(0, 3, "the")


def test_nothing_to_rewind_or_skip_is_an_error() -> None:
    with pytest.raises(RuntimeError):
        guard("a").rewind()
    with pytest.raises(RuntimeError):
        guard("a").skip()


def test_the_built_in_list_leaves_its_neighbours_alone() -> None:
    text = "Oh, honeycomb? No: oh well. Well-known wink, 3-4, it’s on your mind: let's talk."
    subject = guard(*BUILT_IN)
    assert "".join(out for out, _ in through(subject, list(text))) == text.replace("Oh, honey", "")


def test_folding_a_text_is_folding_its_characters() -> None:
    every = [
        chr(point) for point in range(sys.maxunicode + 1) if unicodedata.category(chr(point)) in {"Lu", "Ll", "Lt"}
    ]
    assert FOLDED.units("".join(every)) == "".join(FOLDED.units(char) for char in every)
    assert all(FOLDED.units(FOLDED.units(char)) == FOLDED.units(char) for char in every)


# --- what it costs


def many(count: int) -> list[PhraseRule]:
    return [PhraseRule(f"{word} number {index} of the list") for index in range(count // 4) for word in BUILT_IN[:4]]


def test_two_thousand_phrases_build_quickly() -> None:
    started = time.process_time()
    PhraseAutomaton.build(many(2000))
    assert time.process_time() - started < 1.0  # measured: about 0.1 s; the bound allows for a slow machine


def test_work_grows_with_the_text_alone() -> None:
    """Steps, not seconds: the automaton's moves per character do not grow with the list."""

    class Counted(dict[str, int]):
        looks = 0

        def get(self, key: str, default: Any = None) -> Any:
            Counted.looks += 1
            return super().get(key, default)

    text = "Oh well, *wink* and what not. " * 20
    counts = []
    for size in (20, 2000):
        automaton = PhraseAutomaton.build(many(size))
        PhraseGuard(automaton).feed(text)  # visits the nodes that it needs
        automaton.matchers[0].goto = [Counted(moves) for moves in automaton.matchers[0].goto]
        subject, Counted.looks = PhraseGuard(automaton), 0
        for at in range(0, len(text), 4):
            subject.feed(text[at : at + 4])
        counts.append(Counted.looks)
    assert counts[1] == counts[0] <= 2 * len(text)
