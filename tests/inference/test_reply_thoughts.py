"""A model that thinks aloud: thoughts reach neither the text nor the ids of a reply, and are bounded."""

from __future__ import annotations

import pytest

from inference.engines.base import GenerationRequest
from inference.engines.sampling import GREEDY
from inference.phrases.automaton import PhraseAutomaton
from inference.reply import MAX_CLOSED_THOUGHTS, Reply
from inference.reply_plan import ReplyPlan
from personas.snapshot import PhraseRule
from tests.fakes.engine import FakeEngine

PROMPT = [5, 6, 7]


def reply(engine: FakeEngine, *, max_tokens: int = 200, think: int = 100, banned: tuple[str, ...] = ()) -> Reply:
    automaton = PhraseAutomaton.build([PhraseRule(text) for text in banned])
    return Reply(engine, PROMPT, ReplyPlan("r", GREEDY, max_tokens, automaton, {}, think_max_tokens=think))


async def text_of(one: Reply) -> str:
    return "".join([text async for text in one.stream()])


def ids(engine: FakeEngine, text: str) -> list[int]:
    return list(engine.tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("size", [1, 3, 50])
async def test_thoughts_are_neither_text_nor_ids(size: int) -> None:
    engine = FakeEngine(reply="<think>\nThe user greets.\n</think>\n\nHello there", tokens_per_delta=size)
    one = reply(engine)
    assert await text_of(one) == one.released() == "Hello there"
    kept = one.released_ids(lambda text: ids(engine, text))
    assert engine.tokenizer.decode(kept) == "Hello there"
    assert one.completion_tokens == len(kept)
    assert one.reasoning_tokens > 10
    assert one.finish_reason == "stop"
    assert len(engine.requests) == 1


async def test_thoughts_do_not_shorten_the_reply() -> None:
    thoughts = "<think>" + "well " * 20 + "</think>"
    script = ids(FakeEngine(), f"{thoughts}Hello there, how are you today?")

    def generate(request: GenerationRequest) -> list[int]:
        return script[len(request.prompt_ids) - len(PROMPT) :]

    engine = FakeEngine(reply=generate)
    one = reply(engine, max_tokens=12)
    text = await text_of(one)
    assert text
    assert "Hello there, how are you today?".startswith(text)
    assert one.completion_tokens <= 12
    assert len(engine.requests) > 1


async def test_thoughts_that_take_too_long_are_closed() -> None:
    closing = ids(FakeEngine(), "</think>\n\n")

    def generate(request: GenerationRequest) -> str:
        closed = list(request.prompt_ids)[-len(closing) :] == closing
        return "At last." if closed else "<think>" + "well " * 500

    engine = FakeEngine(reply=generate)
    one = reply(engine, think=30, max_tokens=400)
    assert await text_of(one) == "At last."
    assert one.finish_reason == "stop"
    assert 30 <= one.reasoning_tokens <= 60
    assert len(engine.requests) == 2
    assert engine.aborted == ["r.0.1"]


async def test_a_model_that_thinks_for_ever_ends_without_text() -> None:
    engine = FakeEngine(reply="<think>" + "well " * 500)
    one = reply(engine, think=10, max_tokens=400)
    assert await text_of(one) == ""
    assert one.finish_reason == "length"
    assert len(engine.requests) == MAX_CLOSED_THOUGHTS + 1


async def test_a_model_that_stops_inside_of_its_thoughts_is_asked_for_the_reply() -> None:
    def generate(request: GenerationRequest) -> str:
        return "Hello." if len(request.prompt_ids) > len(PROMPT) else "<think>hm"

    engine = FakeEngine(reply=generate)
    one = reply(engine)
    assert await text_of(one) == "Hello."
    assert one.finish_reason == "stop"


@pytest.mark.parametrize(
    "said", [" \n", "<", "I <3 you <", "a <thin", "\n\nHello", "🦜", "x </", "[", "two < three", "<b>bold</b>"]
)
@pytest.mark.parametrize("size", [1, 2, 9])
async def test_a_reply_without_thoughts_is_unchanged(said: str, size: int) -> None:
    engine = FakeEngine(reply=said, tokens_per_delta=size)
    one = reply(engine)
    assert await text_of(one) == said
    assert one.released_ids(lambda text: ids(engine, text)) == ids(engine, said)
    assert one.reasoning_tokens == 0


async def test_phrases_are_guarded_behind_thoughts() -> None:
    wanted = ids(FakeEngine(), "<think>hm</think>Oh honey, hi")

    def generate(request: GenerationRequest) -> list[int]:
        done = len(request.prompt_ids) - len(PROMPT)
        return [token for token in wanted[done:] if request.logit_bias.get(token, 0.0) > -100]

    engine = FakeEngine(reply=generate)
    one = reply(engine, banned=("Oh honey",))
    text = await text_of(one)
    assert "Oh honey" not in text
    assert "think" not in text
    assert one.suppressed >= 1
