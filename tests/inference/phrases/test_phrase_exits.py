"""No phrase leaves at any exit: not in the frames, not in ``final``, not in what the next prompt remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from inference.engines.base import GenerationRequest
from inference.serving_context import SessionPolicy
from inference.turn_plan import TurnPolicy
from personas.snapshot import PhraseRule
from tests.fakes.engine import FakeEngine, tiny_tokenizer
from tests.fakes.serving import ANNA, START, Line, catalogue, talking

TOKENIZER = tiny_tokenizer()
# What it wants to say first, what it says where that is forbidden, and so on.
SAD = "Well. I am sad."
HELLO = f"{SAD} You are them. Hello there, how are you?"
WISHES = (
    "Well. Oh honey, how are you?",
    f"{SAD} Oh honey, do not be",
    f"{SAD} You are the best",
    f"{SAD} You are them. Well, well, yes",
    f"{HELLO} *winks* ok",
    f"{HELLO} I see the",
    f"{HELLO} I see thee, oh *honey* now.",  # with the marks out it is one
)
LISTED = ("oh honey", "well, well", "*winks*")
RULES = (*(PhraseRule(text) for text in LISTED), PhraseRule("the", whole_word=True))
STYLES = pytest.mark.parametrize("style", ["raw", "speech"])
FLUSHES = pytest.mark.parametrize("flush", [0.0, 0.005], ids=["each", "gathered"])


def ids(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False))


class Wanting(FakeEngine):
    """At each place it wants to say the first of ``WISHES`` that goes on from what it has said so far and does not
    begin with a forbidden token; where none does, ``x``, and is silent."""

    def __init__(self, given: int | None = None, wishes: tuple[str, ...] = WISHES) -> None:
        super().__init__(step=None if given is None else asyncio.Semaphore(given))
        self.wishes = wishes
        self.prompts: dict[str, int] = {}

    def _tokens(self, request: GenerationRequest) -> tuple[list[int], str]:
        reply = request.request_id.rpartition(".")[0]
        before = list(request.prompt_ids[self.prompts.setdefault(reply, len(request.prompt_ids)) :])
        new: list[int] = []
        while len(new) < request.max_tokens:
            said = str(TOKENIZER.decode([*before, *new]))
            going_on = [wish for wish in self.wishes if wish.startswith(said)]
            if said in self.wishes or not going_on:
                return new, "stop"
            wanted = (ids(wish[len(said) :])[0] for wish in going_on)
            new.append(next((token for token in wanted if request.logit_bias.get(token, 0.0) > -100), ids("x")[0]))
        return new, "length"

    async def drained(self) -> None:
        """Until every token that was given out has been drawn, or the reply is over."""
        assert self.step is not None
        await self.wait_for_requests(1)
        for _ in range(200):  # rounds of the loop: what can still happen happens
            await asyncio.sleep(0)


def leaks(text: str) -> list[str]:
    """A simple look at a whole text."""
    straight = f" {text} ".casefold()
    words = "".join(char if char.isalnum() or char == "_" else " " for char in straight)
    return [phrase for phrase in LISTED if phrase in straight] + [word for word in words.split() if word == "the"]


Ending = Callable[[Line, Wanting], Awaitable[None]]


async def cancel(line: Line, chat: Wanting) -> None:
    await line.say({"type": "cancel"})


async def barge_in(line: Line, chat: Wanting) -> None:
    chat.step = None
    chat.wishes = ("ok",)
    await line.say({**START, "user_utterance": "stop"})
    await line.until_done(2)


async def cut_by_the_client(line: Line, chat: Wanting) -> None:
    await line.say({"type": "cancel", "heard": len(line.text()) // 2})


async def die(line: Line, chat: Wanting) -> None:
    chat.die()


async def time_out(line: Line, chat: Wanting) -> None:
    """It comes of itself."""


@dataclass(frozen=True)
class Exit:
    end: Ending
    turn: TurnPolicy = field(default_factory=TurnPolicy)
    done: dict[str, Any] | None = None


EXITS = {
    "cancel": Exit(cancel, done={"cancelled": True}),
    "heard": Exit(cut_by_the_client, done={"cancelled": True}),
    "barge-in": Exit(barge_in, done={"cancelled": True}),
    "engine error": Exit(die),
    "timeout": Exit(time_out, TurnPolicy(reply_timeout_s=0.03)),
}


def check(line: Line, turns: int) -> None:
    """Frames of all turns so far, each by itself."""
    for turn in range(1, turns + 1):
        own = [frame for frame in line.frames if frame.get("turn") == turn]
        texts = ["".join(frame["text"] for frame in own if frame["type"] == "token")]
        texts += [frame["normalized_text"] for frame in own if frame["type"] == "final"]
        for text in texts:
            assert not leaks(text), text
        assert [frame["type"] for frame in own].count("done") == 1


def remembered(line: Line) -> list[str]:
    """The replies in the next prompt."""
    conversation, character = line.session._state.conversation, line.session._state.chosen
    assert conversation is not None
    assert character is not None
    prompt = str(
        TOKENIZER.decode(conversation.chat_prefix(line.serving.resolver.resolve(character, line.session.caller)))
    )
    return [part.partition("<|im_end|>")[0] for part in prompt.split("<|im_start|>assistant\n")[1:]]


def with_style(style: str) -> Any:
    return catalogue(replace(ANNA, output_style=style), phrases=RULES)


@pytest.mark.thorough
@STYLES
@FLUSHES
@pytest.mark.parametrize("name", EXITS)
async def test_cut_short_after_any_token(name: str, style: str, flush: float) -> None:
    way = EXITS[name]
    policy = replace(way.turn, flush_delay_s=flush)
    shown = set()
    for given in range(0, 48, 4 if name == "timeout" else 1):
        chat = Wanting(given)
        async with talking(chat, turn=policy, catalogue=with_style(style)) as line:
            await line.say(START)
            await chat.drained()
            finished = line.frames[-1]["type"] == "done"
            await way.end(line, chat)
            frames = await line.until_done()
            check(line, 2 if name == "barge-in" else 1)
            first_done = next(frame for frame in frames if frame["type"] == "done")
            if not finished and way.done:
                assert first_done | way.done == first_done
            shown.add(line.text())
            for reply in remembered(line):
                assert not leaks(reply), reply
        await chat.wait_idle()
    assert len(shown) > (1 if flush else 3)


@STYLES
@pytest.mark.parametrize("limit", range(1, 30))
async def test_at_any_length(limit: int, style: str) -> None:
    chat = Wanting()
    policy = SessionPolicy(turn=TurnPolicy(), max_out=limit)
    async with talking(chat, policy=policy, catalogue=with_style(style)) as line:
        frames = await line.turn()
        check(line, 1)
        assert frames[-1]["usage"]["completion_tokens"] <= limit
        assert frames[-1]["usage"]["finish_reason"] in ("length", "stop")
        assert not leaks(remembered(line)[0])


@STYLES
async def test_to_its_own_end(style: str) -> None:
    chat = Wanting()
    async with talking(chat, catalogue=with_style(style)) as line:
        frames = await line.turn()
        check(line, 1)
        assert frames[-1]["usage"]["suppressed"] >= 2
        assert frames[-1]["usage"]["finish_reason"] == "stop"
        assert len(line.text()) > 8


async def test_without_the_list_it_is_said() -> None:
    async with talking(Wanting()) as line:
        await line.turn()
        assert line.text() == WISHES[0]
        assert leaks(line.text())
