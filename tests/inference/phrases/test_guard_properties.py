"""The guard against the oracle: whole texts, every list, any pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from inference.phrases.automaton import Matcher
from inference.phrases.guard import Hit, PhraseAutomaton, PhraseGuard
from inference.phrases.stops import speaker_labels, text_stops
from inference.phrases.units import FOLDED
from personas.snapshot import PhraseRule
from tests.examples import examples
from tests.inference.phrases.phrase_oracle import BAN, Listed, clean, deliver, first_hit, held_from, labels_of, listed


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


# --- the same, against the oracle

LETTERS = "aabbAB  ßsSİi\u0307\u0301kK\N{KELVIN SIGN}ŉn'’“\"_-\n😀𝒳"
# What is written in more than one way, and what cannot be seen.
FORMS = "eéE\u0301\u0323ệ=≠\u0338가각\u11a8ᾳ\u0345  \u00a0\u202f-\u2010\u2011\u200b\u00ad\u200d❤\ufe0f👍🏽🏻👩👧🇩🇪🇫*"
texts = st.text(st.sampled_from(LETTERS + FORMS), max_size=4) | st.text(st.sampled_from(LETTERS), max_size=4)
phrases = st.text(st.sampled_from(LETTERS + FORMS), min_size=1, max_size=5).filter(lambda text: FOLDED.units(text))


@st.composite
def phrase_lists(draw: st.DrawFn) -> list[PhraseRule]:
    found = draw(st.lists(phrases, min_size=1, max_size=4))
    for phrase in draw(st.lists(st.sampled_from(found), max_size=3)):
        at = draw(st.integers(0, len(phrase)))
        found += [part for part in (phrase[:at], phrase[at:]) if FOLDED.units(part)]
    return [PhraseRule(text, case_sensitive=draw(st.booleans()), whole_word=draw(st.booleans())) for text in found]


@dataclass(frozen=True)
class World:
    """A list, the oracle's reading of it, and a text made of pieces of what is listed."""

    automaton: PhraseAutomaton
    matchers: tuple[Matcher, ...]
    items: list[Listed]
    text: str

    def guard(self) -> PhraseGuard:
        return PhraseGuard(self.automaton, self.matchers)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    rules = draw(phrase_lists())
    names = draw(st.sampled_from([None, None, (None, None), ("a", "ka"), ("ka", "ß")]))
    stops = draw(st.lists(st.text(st.sampled_from("ab#"), min_size=2, max_size=3), max_size=1))
    items = listed(rules, labels_of(*names) if names else (), stops)
    named = items if not names else [item for item in items if len(item.text) < 8]
    parts = [piece for item in named for piece in (item.text, item.text[:-1], item.text[1:], item.text.swapcase())]
    text = "".join(draw(st.lists(st.one_of(texts, st.sampled_from(parts)), max_size=8)))
    matchers = (
        *(speaker_labels(names[0], (names[1],) if names[1] else ()) if names else ()),
        *([text_stops(stops)] if stops else []),
    )
    return World(PhraseAutomaton.build(rules), matchers, items, text)


@st.composite
def cuts_of(draw: st.DrawFn, text: str) -> list[str]:
    at = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[start:end] for start, end in zip([0, *at], [*at, len(text)], strict=True)]


@examples(150, deadline=None)
@given(worlds())
def test_the_first_hit_is_the_oracles_at_every_split_point(world: World) -> None:
    items, text = world.items, world.text
    expected = first_hit(items, text)
    expected = expected and (*expected[:2], min(expected[2], BAN))
    splits = [[text[:at], text[at:]] for at in range(len(text) + 1)] + [list(text)]
    outcomes = set()
    for chunks in splits:
        subject = world.guard()
        out, hit = "", None
        for chunk in chunks:
            new, hit = subject.feed(chunk)
            out += new
            if hit is not None:
                break
        else:
            new, hit = subject.finish()
            out += new
        assert (hit and (hit.start, hit.end, hit.kind)) == expected
        assert hit is not None or out == text
        outcomes.add((out, subject.held_from, hit))
    assert len(outcomes) == 1


@examples(150, deadline=None)
@given(worlds(), st.data())
def test_what_is_delivered_is_the_oracles_and_clean_at_every_moment(world: World, data: st.DataObject) -> None:
    items, text = world.items, world.text
    subject, out = world.guard(), ""
    for new, _ in through(subject, data.draw(cuts_of(text))):
        out += new
        assert clean(items, out), "the reply may end here"
        assert subject.held_from + len(subject.pending) <= subject.position <= len(text)
    assert out == deliver(items, text)


@examples(150, deadline=None)
@given(worlds(), st.data())
def test_nothing_is_held_but_what_the_oracle_must_hold(world: World, data: st.DataObject) -> None:
    items, text = world.items, world.text
    subject, fed = world.guard(), ""
    for chunk in data.draw(cuts_of(text)):
        fed += chunk
        _, hit = subject.feed(chunk)
        if hit is not None:
            break
        assert subject.held_from == held_from(items, fed)
        assert subject.pending == fed[subject.held_from :]


@examples(150, deadline=None)
@given(worlds(), st.lists(texts, max_size=6), st.data())
def test_rewound_text_is_clean_and_independent_of_the_chunks(
    world: World, others: list[str], data: st.DataObject
) -> None:
    items, text = world.items, world.text

    def reply(pieces: list[list[str]]) -> tuple[str, list[Hit]]:
        """The engine's text, then another one after each rewind; then the end, rewound as often as it must be."""
        subject, out, hits = world.guard(), "", []
        for piece in pieces:
            hit = None
            for chunk in piece:
                new, hit = subject.feed(chunk)
                out += new
                assert clean(items, out)
                if hit is not None:
                    break
            if hit is None:
                continue
            hits.append(hit)
            assert subject.held_from <= hit.start < hit.end <= subject.position
            if hit.stop:
                return out, hits
            subject.rewind()
            assert subject.position == hit.start
            assert len(out) == subject.held_from
        while True:
            new, hit = subject.finish()
            out += new
            assert clean(items, out)
            if hit is None:
                return out, hits
            hits.append(hit)
            subject.rewind()

    pieces = [text, *others]
    assert reply([data.draw(cuts_of(piece)) for piece in pieces]) == reply([list(piece) for piece in pieces])


@examples(100, deadline=None)
@given(worlds(), st.data())
def test_tokens_may_be_withheld_and_rewound_whole(world: World, data: st.DataObject) -> None:
    """A caller that shows and rewinds whole tokens, and asks for safe ends, shows nothing that is listed either."""
    items, text = world.items, world.text
    subject, tokens, shown, kept = world.guard(), [0], 0, ""

    def boundary(place: int) -> int:
        while True:
            token = max(start for start in tokens if start <= place)
            place = subject.safe_end(token)
            if place == token:
                return token

    for chunk in data.draw(cuts_of(text)):
        kept += chunk
        _, hit = subject.feed(chunk)
        if hit is not None:
            end = boundary(hit.start)
            assert end >= shown
            subject.rewind(end)
            kept = kept[:end]
            tokens = [start for start in tokens if start < end] + [end]
        else:
            tokens.append(subject.position)
        end = boundary(subject.held_from)
        assert end >= shown
        shown = end
        assert clean(items, kept[:shown])
        assert subject.position == len(kept)
