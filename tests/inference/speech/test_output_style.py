from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.phrases.guard import PhraseAutomaton
from inference.phrases.stops import text_stops
from inference.speech.output_style import GuardedStyle, OutputStyle, RawStyle, SpeechStyle, output_style
from personas.snapshot import PhraseRule


def speech(text: str) -> str:
    style = SpeechStyle()
    return style.feed(text) + style.finish()


def given_by(style: OutputStyle, chunks: list[str]) -> list[str]:
    return [*(style.feed(chunk) for chunk in chunks), style.finish()]


GOLDEN = {
    # emphasis
    "*winks* Oh, **really**, ***truly***, _yes_ __indeed__ ~~no~~.": "winks Oh, really, truly, yes indeed no.",
    '"*Hello*," (she _said_).': '"Hello," (she said).',
    "**bold**text and *one* *two*": "boldtext and one two",
    "**Note:** 3*4=12, 2 * 3 * 4, 2 *3": "Note: 3*4=12, 2 * 3 * 4, 2 *3",
    "snake_case, a_b_c, f****, ~5, * and _ ___": "snake_case, a_b_c, f****, ~5, * and _ ___",
    "\\*not\\* 1\\. C:\\dir": "*not* 1. C:\\dir",
    # lines
    "# Title\n\nText\n## More ": "Title Text More",
    "#hashtag C# ####### seven": "#hashtag C# ####### seven",
    "- one\n* two\n+ three\n  • four\n1. five": "one two three four 1. five",
    "- [x] done\n- [ ] open": "done open",
    "> quoted\n> > deep\n>= 3": "quoted deep >= 3",
    "-5 degrees\n-- aside\n---\nend\n***\n===\n_ _ _": "-5 degrees -- aside end",
    "| a | b |\n|---|:-:|\n| 1 | 2 |\nx | y": "a b 1 2 x | y",
    "a | b\n--- | ---\n": "a | b",
    # code
    "Use `snake_case*` or ``a`b``, don`t": "Use snake_case* or ab, don`t",
    "```python\nx = '*a*'\n# y\n```\n*Done*": "x = '*a*' # y Done",
    "```inline``` *x*": "inline x",
    "~~~\n**raw**\n~~~\n**out**": "**raw** out",
    # links
    'See [the *docs*](http://x.y/z_(w) "T") and ![a cat](c.png)!': "See the docs and a cat!",
    "[![alt](i.png)](http://a.b) [no] a[0](x y) [a": "alt [no] a[0](x y) [a",
    "<https://a.b/c_d> http://a.b/c_d_e, https://x.y/:)": "https://a.b/c_d http://a.b/c_d_e, https://x.y/:)",
    "<http://a.b/😀c> and <mailto:a_b_@c.d>": "http://a.b/c and mailto:a_b_@c.d",
    "a<b<br>c": "a<b c",
    # emoji
    "Hi 😀! Great!😀Let's 👨‍👩‍👧 go 🇩🇪. ✌🏽ok ❤️": "Hi! Great! Let's go. ok",
    "1️⃣ one, 2⃣ two, 3 © 2020 ™ ©️ ↔️": "one, two, 3 © 2020 ™",
    "🏴\U000e0067\U000e0062\U000e007f say“😀”": "say“”",
    "\u0915\u094d\u200d\u0937": "\u0915\u094d\u200d\u0937",
    # emoticons
    "hey :) thanks:) ;-) :D :P :'( :-)))) <3 </3 ^_^ -_- xD \\o/ ¯\\_(ツ)_/¯ ok": "hey thanks ok",
    "Good :). Fine ;)!": "Good. Fine!",
    "(see note:) (:": "(see note:) (:",
    "5:30 C: x<3 2 <3 10:3 :30 http://a.b/c std::Dict T-shirt xDrive": (
        "5:30 C: x<3 2 <3 10:3 :30 http://a.b/c std::Dict T-shirt xDrive"
    ),
    # white space
    "  \n a\t\u00a0b \r\n\n c  ": "a b c",
    "": "",
    " \n": "",
    "😀": "",
}


@pytest.mark.parametrize("text", GOLDEN)
def test_speech_says(text: str) -> None:
    assert speech(text) == GOLDEN[text]


@pytest.mark.parametrize("text", GOLDEN)
def test_speech_says_the_same_at_every_split_point(text: str) -> None:
    assert "".join(given_by(SpeechStyle(), list(text))) == GOLDEN[text]
    for at in range(len(text)):
        assert "".join(given_by(SpeechStyle(), [text[:at], text[at:]])) == GOLDEN[text]


def test_speech_of_speech_is_itself() -> None:
    again = {said: speech(said) for said in GOLDEN.values() if not said.startswith(("*not*", "**raw**", "x = "))}
    assert again == {said: said for said in again}


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
        ("5", "\ufe0f\u20e3", ""),
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
    "[x](y)", "😀", "👍🏽", "\u200d", "\ufe0f", "\u20e3", "🇩", "©", "é", "e\u0301", "\u0301", "•", ":)", "- ", "| ",
]  # fmt: skip
markdown = st.lists(st.sampled_from(PIECES), max_size=24).map("".join)


@settings(max_examples=500, deadline=None)
@given(markdown, st.lists(st.integers(0, 40), max_size=5))
def test_speech_does_not_depend_on_the_chunks(text: str, cuts: list[int]) -> None:
    whole = speech(text)
    assert "".join(given_by(SpeechStyle(), list(text))) == whole
    at = sorted(min(cut, len(text)) for cut in cuts)
    chunks = [text[start:end] for start, end in zip([0, *at], [*at, len(text)], strict=True)]
    assert "".join(given_by(SpeechStyle(), chunks)) == whole


@settings(max_examples=200, deadline=None)
@given(markdown)
def test_speech_is_folded_and_has_no_emoji(text: str) -> None:
    said = speech(text)
    assert said == " ".join(said.split())
    assert not set("😀👍🏽🇩\ufe0f\u20e3") & set(said)


@settings(max_examples=200, deadline=None)
@given(st.text("abcyzE 0123456789.,?'\"%&@é日本ñ\n"))
def test_plain_text_is_only_folded(text: str) -> None:
    assert speech(text) == " ".join(text.split())


@pytest.mark.parametrize("char", ["*", "_", "~", "-", "=", "#", "`", "[", "<", ")", "|", "\\", ":", "1", " "])
def test_what_is_held_is_bounded(char: str) -> None:
    for opening in ("", ":", "[", "[a](", "```", "<http://"):
        style = SpeechStyle()
        for piece in [opening, *[char] * 1300]:
            style.feed(piece)
            assert len(style._buffer) < 1200


@pytest.mark.parametrize("size", [1, 3, 99])
def test_a_phrase_that_the_style_brings_together_is_cut(size: int) -> None:
    rules = [PhraseRule("Oh honey"), PhraseRule("hi", whole_word=True)]
    style = GuardedStyle(SpeechStyle(), PhraseAutomaton.build(rules), [text_stops(["END"])])
    text = "Well, oh *honey*, **hi**d **hi** there. **E**ND no"
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    assert "".join(given_by(style, chunks)) == "Well, , hid there. "
    assert style.suppressed == 2


def test_raw_is_the_identity() -> None:
    assert given_by(RawStyle(), [" *a* ", "", "😀\n"]) == [" *a* ", "", "😀\n", ""]


def test_styles_by_name() -> None:
    assert isinstance(output_style("raw"), RawStyle)
    assert isinstance(output_style("speech"), SpeechStyle)
    with pytest.raises(ValueError, match="unknown output style 'loud'; there are raw, speech"):
        output_style("loud")
