from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.phrases.guard import PhraseAutomaton
from inference.phrases.stops import text_stops
from inference.speech.blocks import RULE_MAX
from inference.speech.output_style import GuardedStyle, RawStyle, SpeechStyle, output_style
from inference.speech.reader import LOOKAHEAD
from personas.snapshot import PhraseRule
from tests.examples import examples
from tests.inference.speech.spoken import pieces_of
from tests.inference.speech.test_spoken_texts import TABLES


def speech(text: str, *skipped: str) -> str:
    style = SpeechStyle(frozenset(skipped))
    return style.feed(text) + style.finish()


SAID = sorted({said for table in TABLES.values() for said in table.values()})


# Escaped signs and code say what would be a mark, were it read again.
@pytest.mark.parametrize("said", [said for said in SAID if not set("*\\`#&=") & set(said)])
def test_speech_of_speech_is_itself(said: str) -> None:
    assert speech(said) == said


def test_words_leave_at_once() -> None:
    style = SpeechStyle()
    assert [style.feed(text) for text in ("Hel", "lo", ", ", "you", ".", " ", "**", "bo", "ld", "**", " so")] == [
        "Hel", "lo", ",", " you", ".", "", "", " bo", "ld", "", " so"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("start", "after", "given_then"),
    [
        ("see [docs", "](u)", "docs"),
        ("see [docs", "] ", "[docs]"),
        ("5", "\ufe0f\u20e3", "5"),
        ("5", " ", "5"),
        ("a :", ") ", ""),
        ("a :", " b", ": b"),
        ("*", "*bold", "bold"),
    ],
)
def test_what_must_be_seen_whole_waits(start: str, after: str, given_then: str) -> None:
    style = SpeechStyle()
    said = style.feed(start)
    assert given_then == "" or given_then not in said
    assert (said + style.feed(after)).split(" ", maxsplit=1)[-1].removeprefix("a").strip() == given_then


PIECES = [
    "a", "b", "T", "x", "D", "3", "1", " ", " ", "\n", "\n", "*", "*", "**", "_", "__", "~", "~~", "`", "```", "#", "-",
    "+", ">", "|", "[", "]", "(", ")", "!", "\\", "/", ":", ";", "<", "3", "=", "^", ".", '"', "'", "http://", "<br>",
    "[x](y)", "[^1]", "][", "]:", "【", "†", "】", "==", "____", "&amp;", "<b>", '<a href="', "OOC", "(^_^)", "XD",
    "# ", "1. ", "> ", "\r\n", "\n\n", "非", "常", "。", "～", "\u202e", "😀", "👍🏽", "\u200d", "\ufe0f", "\u20e3",
    "🇩", "©", "é", "e\u0301", "\u0301", "•", ":)", "- ", "| ",
]  # fmt: skip
markdown = st.lists(st.sampled_from(PIECES), max_size=24).map("".join)


kinds = st.frozensets(st.sampled_from(["actions", "asides", "ooc", "code"]))


@examples(1000, deadline=None)
@given(markdown, st.lists(st.integers(0, 60), max_size=5), kinds)
def test_speech_does_not_depend_on_the_chunks(text: str, cuts: list[int], skipped: frozenset[str]) -> None:
    whole = speech(text, *skipped)
    assert "".join(pieces_of(SpeechStyle(skipped), list(text))) == whole
    at = sorted(min(cut, len(text)) for cut in cuts)
    chunks = [text[start:end] for start, end in zip([0, *at], [*at, len(text)], strict=True)]
    assert "".join(pieces_of(SpeechStyle(skipped), chunks)) == whole


@examples(200, deadline=None)
@given(markdown)
def test_speech_is_folded_and_has_no_emoji(text: str) -> None:
    said = speech(text)
    assert said == " ".join(said.split())
    assert not set("😀👍🏽🇩\ufe0f\u20e3") & set(said)


@examples(200, deadline=None)
@given(st.text("abcyzE 0123456789.,?'\"%@é日本ñ\n"))
def test_plain_text_is_folded_and_its_paragraphs_end(text: str) -> None:
    said = speech(text)
    assert said == " ".join(said.split())
    for stop in ".。":
        text, said = text.replace(stop, ""), said.replace(stop, "")
    assert said.split() == text.split()


@pytest.mark.parametrize("text", ["abc def", "日本", "it's 5%", "x (y)", 'say "x"'])
@pytest.mark.parametrize("end", ["", "\n\n", "\n# x", "\n- x", " 😀\n\n"])
def test_a_paragraph_ends_with_punctuation(text: str, end: str) -> None:
    said = speech(text + end)
    assert said.startswith((f"{text}.", f"{text}。"))


OPENINGS = [
    "", "x", ":", "[", "[a](", "[a](b", "![", "[a]: http://x", "```", "<http://", "<a href=", "<b ", "(", "**", "foo**",
    "x~~", "==", "【", "&", "x (😀",
]  # fmt: skip


@pytest.mark.parametrize("char", [*"*_~-=#`[<()|\\:1 aé😀【^&"])
@pytest.mark.parametrize("opening", OPENINGS)
def test_nothing_is_held_for_long(opening: str, char: str) -> None:
    """A run of marks, and the text in which its closing run would have to be. Lines of one sign may be rules."""
    style, limit = SpeechStyle(), 2 * LOOKAHEAD + len(opening)
    if not opening and char in "*-_=:|":
        limit = RULE_MAX
    for piece in [f"x {opening}" if opening else "", *[char] * 300]:
        style.feed(piece)
        assert style.held <= limit + 2


def test_a_bracket_is_held_for_forty_characters() -> None:
    style, said = SpeechStyle(), "See [this "
    given = style.feed(said)
    for _ in range(LOOKAHEAD):
        given += style.feed("x")
    assert given.startswith("See [this xxx")
    style = SpeechStyle()
    assert style.feed("See [docs](http://a.b") == "See"
    assert style.feed("/x") == " docs"
    assert style.feed("x" * 300 + ") now ") == " now"


@pytest.mark.parametrize("size", [1, 3, 99])
def test_a_phrase_that_the_style_brings_together_is_cut(size: int) -> None:
    rules = [PhraseRule("Oh honey"), PhraseRule("hi", whole_word=True)]
    style = GuardedStyle(SpeechStyle(), PhraseAutomaton.build(rules), [text_stops(["END"])])
    text = "Well, oh *honey*, **hi**d **hi** there. **E**ND no"
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    assert "".join(pieces_of(style, chunks)) == "Well, , hid there. "
    assert style.suppressed == 2


def test_raw_is_the_identity() -> None:
    assert pieces_of(RawStyle(), [" *a* ", "", "😀\n"]) == [" *a* ", "", "😀\n", ""]


def test_styles_by_name() -> None:
    assert isinstance(output_style("raw"), RawStyle)
    assert isinstance(output_style("speech"), SpeechStyle)
    with pytest.raises(ValueError, match="unknown output style 'loud'; there are raw, speech"):
        output_style("loud")
