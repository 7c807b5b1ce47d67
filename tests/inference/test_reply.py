from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engines.base import EngineDead, GenerationRequest
from inference.engines.sampling import Sampling
from inference.phrases.guard import PhraseAutomaton
from inference.phrases.stops import speaker_labels
from inference.reply import RETRIES_PER_POSITION, RETRIES_PER_REPLY, Reply
from inference.reply_plan import ReplyPlan
from personas.snapshot import PhraseRule
from tests.examples import examples
from tests.fakes.engine import FakeEngine, tiny_tokenizer
from tests.fakes.serving import catalogue, talking

TOKENIZER = tiny_tokenizer()
PROMPT = [1, 2, 3]


def ids(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False))


def text_of(tokens: Sequence[int]) -> str:
    return str(TOKENIZER.decode(list(tokens)))


class Model(FakeEngine):
    """A model with its mind made up: at each place it prefers the first of its texts that goes on from what it has said
    and does not begin with a forbidden token; where none does, it says ``x``. So a rewind leads somewhere else."""

    def __init__(self, *texts: str | Sequence[int], tokens_per_delta: int = 1) -> None:
        super().__init__(tokens_per_delta=tokens_per_delta)
        self.texts = [ids(text) if isinstance(text, str) else list(text) for text in texts]

    def _tokens(self, request: GenerationRequest) -> tuple[list[int], str]:
        said = list(request.prompt_ids[len(PROMPT) :])
        new: list[int] = []
        while len(new) < request.max_tokens:
            token = self._next([*said, *new], request)
            if token is None:
                return new, "stop"
            new.append(token)
        return new, "length"

    def _next(self, said: list[int], request: GenerationRequest) -> int | None:
        forbidden = {token for token, bias in request.logit_bias.items() if bias <= -100}
        going_on = [text for text in self.texts if text[: len(said)] == said]
        for text in going_on:
            if len(text) == len(said):
                return None
            if text[len(said)] not in forbidden:
                return text[len(said)]
        return ids("x")[0] if going_on else None


def reply(
    engine: FakeEngine,
    *banned: str,
    max_tokens: int = 150,
    rules: Sequence[PhraseRule] = (),
    bias: dict[int, float] | None = None,
) -> Reply:
    automaton = PhraseAutomaton.build([*(PhraseRule(text) for text in banned), *rules])
    labels = speaker_labels("Bob", ("Mia",))
    return Reply(engine, PROMPT, ReplyPlan("r", Sampling(), max_tokens, automaton, bias or {}, matchers=labels))


async def said(one: Reply) -> str:
    async with aclosing(one.stream()) as pieces:
        parts = [piece async for piece in pieces]
    assert all(parts), "no empty piece"
    assert "".join(parts) == one.released()
    return one.released()


# -- nothing to do ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_a_reply_without_a_phrase_is_one_request(size: int) -> None:
    text = "Hello there, how are you? 😀 Well."
    engine = Model(text, tokens_per_delta=size)
    one = reply(engine, "Oh honey")
    assert await said(one) == text
    assert one.released_ids(ids) == ids(text)
    assert (one.requests, one.suppressed, one.finish_reason) == (1, 0, "stop")
    assert one.completion_tokens == len(ids(text))
    assert one.prompt_tokens == len(PROMPT)


async def test_generated_ids_are_kept_as_they_were() -> None:
    letters = [ids(letter)[0] for letter in "Hello"]
    one = reply(Model(letters), "Oh honey")
    assert await said(one) == "Hello"
    assert one.released_ids(ids) == letters != ids("Hello")


async def test_text_that_merely_begins_like_a_phrase_is_untouched() -> None:
    one = reply(Model("Oh, how are you? Oh"), "Oh honey")
    assert await said(one) == "Oh, how are you? Oh"
    assert (one.requests, one.suppressed) == (1, 0)


async def test_a_reply_ends_at_its_length() -> None:
    one = reply(Model("Hello there, how are you?"), max_tokens=3)
    await said(one)
    assert (one.completion_tokens, one.finish_reason) == (3, "length")


# -- going back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5, 50])
async def test_generation_goes_back_to_the_first_token_of_the_phrase(size: int) -> None:
    engine = Model("Well. Oh honey, how are you?", "Well. I am fine.", tokens_per_delta=size)
    one = reply(engine, "Oh honey")
    assert await said(one) == "Well. I am fine."
    assert (one.suppressed, one.finish_reason) == (1, "stop")
    first, again, on = engine.requests
    begun, instead = ids("Well. Oh honey, how are you?"), ids("Well. I am fine.")
    place = next(n for n, pair in enumerate(zip(begun, instead, strict=False)) if pair[0] != pair[1])
    assert list(again.prompt_ids) == [*PROMPT, *begun[:place]]
    assert (again.max_tokens, dict(again.logit_bias)) == (1, {begun[place]: -100.0})
    assert dict(on.logit_bias) == {}  # forbidden there, and nowhere else
    assert list(on.prompt_ids)[: len(again.prompt_ids)] == list(again.prompt_ids)
    assert one.released_ids(ids) == ids("Well. I am fine.")
    assert len({request.request_id for request in engine.requests}) == 3
    assert engine.aborted == [first.request_id] or size == 50


async def test_biases_hold_for_every_step() -> None:
    engine = Model("Well. Oh honey", "Well. I am")
    one = reply(engine, "Oh honey", bias={399: -5.0})
    await said(one)
    assert all(request.logit_bias[399] == -5.0 for request in engine.requests)


async def test_what_shares_a_token_with_the_phrase_is_said_in_another_way() -> None:
    """``. Oh`` as a token of its own would have shown the full stop already."""
    whole = [*ids("Well"), *ids(",")]
    engine = Model([*whole, *ids(" well"), *ids(" how")], [*whole, *ids(" how")])
    one = reply(engine, "well how")  # the phrase begins inside the token " well"
    assert await said(one) == "Well, how"
    assert one.suppressed == 1


async def test_what_was_taken_back_does_not_count() -> None:
    engine = Model("Oh honey, how are you?", "I am fine, thank you for asking.")
    full = len(ids("I am fine, thank you for asking."))
    one = reply(engine, "Oh honey", max_tokens=full)
    assert await said(one) == "I am fine, thank you for asking."
    assert one.completion_tokens == full


async def test_two_phrases_at_one_place() -> None:
    engine = Model("Oh honey.", "Well, well.", "I am fine.")
    one = reply(engine, "Oh honey", "Well, well")
    assert await said(one) == "I am fine."
    assert one.suppressed == 2
    forbidden = {token for request in engine.requests for token in request.logit_bias}
    assert forbidden == {ids("Oh honey.")[0], ids("Well, well.")[0]}


async def test_phrases_one_after_the_other() -> None:
    engine = Model("Oh honey.", "Hello there, oh honey.", "Hello there, you.")
    one = reply(engine, "Oh honey")
    assert await said(one) == "Hello there, you."
    assert one.suppressed == 2


async def test_a_phrase_of_characters_that_need_several_tokens() -> None:
    assert len(ids("😀")) > 1
    engine = Model("Well 😀😀 now", "Well 1 now")
    one = reply(engine, "😀")
    assert await said(one) == "Well 1 now"
    assert one.suppressed == 1


async def test_retries_are_bounded_and_then_the_phrase_is_cut() -> None:
    engine = FakeEngine(reply="oh honey " * 200)  # whatever is forbidden
    one = reply(engine, "oh honey", max_tokens=100)
    async with asyncio.timeout(20):
        text = await said(one)
    assert "oh honey" not in text.lower()
    assert one.requests <= 2 * RETRIES_PER_REPLY + 3
    assert one.suppressed > RETRIES_PER_POSITION
    assert one.finish_reason == "length"
    assert one.completion_tokens <= 100


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6])
async def test_a_phrase_at_the_very_end_is_not_shown(limit: int) -> None:
    one = reply(Model("Oh honey how are you", "Well I am fine thank you"), "Oh honey", "Oh", max_tokens=limit)
    assert "oh" not in (await said(one)).lower()
    assert one.completion_tokens <= limit
    assert one.finish_reason == "length"


# -- stops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["User:", "Assistant:", "user:"])
@pytest.mark.parametrize("size", [1, 3, 100])
async def test_a_speaker_label_at_the_start_of_a_line_ends_the_reply(label: str, size: int) -> None:
    engine = Model(f"I am fine.\n{label} and you?", tokens_per_delta=size)
    one = reply(engine)
    assert (await said(one)).rstrip() == "I am fine."
    assert (one.finish_reason, one.suppressed) == ("stop", 0)
    await engine.wait_idle()
    assert text_of(one.released_ids(ids)) == one.released()


async def test_a_speaker_label_inside_a_line_is_text() -> None:
    text = "The label is User: you know."
    assert await said(reply(Model(text))) == text


# -- the end ---------------------------------------------------------------------------------------


async def test_an_engine_that_gives_up_is_dead() -> None:
    class Aborting(FakeEngine):
        async def _stream(self, request: GenerationRequest):  # type: ignore[no-untyped-def]
            yield "Hello", ids("Hello"), None
            yield "", [], "abort"

    with pytest.raises(EngineDead):
        await said(reply(Aborting()))


WORDS = (
    "Oh",
    " honey",
    " oh",
    "Well",
    ", well",
    " ",
    "h",
    "one",
    "y",
    " you",
    "😀",
    "é",
    ".",
    "\n",
    "User",
    ":",
    "O",
    "oh honey",
)
PHRASES = st.lists(
    st.sampled_from(["oh honey", "well, well", "😀", " you", "h", "ney y", "é.", "one"]), max_size=3, unique=True
)
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=10).map("".join), min_size=1, max_size=4)


def contains(text: str, banned: Sequence[str]) -> bool:
    return any(phrase in text.casefold() for phrase in banned)


@examples(150, deadline=None)
@given(TEXTS, PHRASES, st.integers(1, 30), st.integers(1, 6))
async def test_whatever_the_model_wants_no_phrase_is_shown(
    texts: list[str], banned: list[str], limit: int, size: int
) -> None:
    engine = Model(*texts, tokens_per_delta=size)
    one = reply(engine, *banned, max_tokens=limit)
    text = await said(one)
    assert not contains(text, banned)
    assert one.completion_tokens <= limit
    assert one.finish_reason in ("stop", "length")
    assert text_of(one.released_ids(ids)) == text
    assert engine.stats()["running"] == 0
    if not one.suppressed and one.finish_reason == "stop" and "user:" not in texts[0].casefold():
        assert text == texts[0]


@examples(60, deadline=None)
@given(TEXTS, PHRASES, st.integers(1, 6), st.integers(0, 12))
async def test_cut_short_anywhere_neither_text_nor_record_has_a_phrase(
    texts: list[str], banned: list[str], size: int, pieces: int
) -> None:
    engine = Model(*texts, tokens_per_delta=size)
    one = reply(engine, *banned)
    async with aclosing(one.stream()) as stream:
        for _ in range(pieces):
            if await anext(stream, None) is None:
                break
    shown = one.released()
    assert not contains(shown, banned)
    assert text_of(one.released_ids(ids)) == shown
    for end in range(len(shown) + 1):
        assert text_of(one.ids_of(shown[:end], ids)) == shown[:end]
    assert engine.stats()["running"] == 0


async def test_in_a_session_frames_final_and_record_are_free_of_it() -> None:
    chat = FakeEngine(reply="Well. Oh honey, how are you?")
    async with talking(
        chat, catalogue=catalogue(phrases=(PhraseRule("oh honey"), PhraseRule("fine", bias=-3.0)))
    ) as line:
        frames = await line.turn()
        assert "oh honey" not in line.text().lower()
        assert frames[-1]["usage"]["suppressed"] >= 1
        assert all(-3.0 in request.logit_bias.values() for request in chat.requests)
        chat.reply = "ok"
        await line.turn()
        assert "oh honey" not in text_of(chat.requests[-1].prompt_ids).lower()
