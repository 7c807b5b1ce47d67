"""Banned phrases on the real engine with a real model: no leak, no change to other text, and retries from the prefix
cache.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path

import pytest
import pytest_asyncio

from accounts.token_budget import MemoryTokenBudget
from accounts.usage import UsageBatch, UsageLedger
from inference.engines.base import Delta, Engine, EngineRole, GenerationRequest
from inference.engines.sampling import GREEDY, Sampling, SamplingRules
from inference.engines.service import EngineService, vllm_service
from inference.engines.spec import DEMO_MODEL, EngineSpec
from inference.metrics import Metrics
from inference.phrases.compiled import CompiledPhrases, PhraseStore
from inference.prompting.chat_template import ChatFormat
from inference.prompting.persona_encoder import PersonaEncoder
from inference.prompting.persona_resolver import PersonaResolver
from inference.prompting.prompt_limits import PromptLimits
from inference.protocol.decoder import Decoder
from inference.reply import Reply
from inference.reply_plan import ReplyPlan
from inference.serving_context import ServingContext, SessionPolicy
from inference.turn_plan import TurnPolicy
from personas.snapshot import Catalogue, PersonaSnapshot, PhraseRule
from tests.fakes.serving import RULES, UNLIMITED, Line, check_order

CHECKOUT = Path(__file__).resolve().parents[2]
MODEL = CHECKOUT / ".models" / DEMO_MODEL
MAX_OUT = 32
SESSIONS_AT_ONCE = 7
ALWAYS_SAID = ("the", "and", "I'm", "Hello", ".", " a ")
LISTS = [*((phrase,) for phrase in ALWAYS_SAID), ALWAYS_SAID]
CHARACTERS = (
    "You are Anna, calm and kind.",
    "You are a dry old pirate.",
    "You are a teacher who explains things at length.",
)
QUESTIONS = (
    "Hello, who are you?",
    "Tell me a story about a fox.",
    "Write a short greeting for a letter to my teacher.",
    "What is the sea?",
    "Good night.",
    "How do I bake bread?",
)

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]
_numbers = count()


def rules(phrases: Sequence[str]) -> tuple[PhraseRule, ...]:
    return tuple(PhraseRule(phrase) for phrase in phrases)


def slug(number: int) -> str:
    return f"list-{number}"


def persona(number: int, phrases: Sequence[str]) -> PersonaSnapshot:
    character = CHARACTERS[number % len(CHARACTERS)]
    return PersonaSnapshot(slug(number), "Someone", "female", "calm", character, phrases=rules(phrases))


async def _write_nothing(batch: UsageBatch) -> None:
    """A database that takes everything."""


async def _nothing_used(_prefix: str, _now: float) -> int:
    return 0


def serving_with(service: EngineService, sampling: SamplingRules) -> ServingContext:
    """Create sessions on the real engine, with one persona per list."""
    chat = ChatFormat(service.engine(EngineRole.CHAT).tokenizer)
    resolver = PersonaResolver(PersonaEncoder(chat, None, PromptLimits()), PhraseStore(chat))
    catalogue = Catalogue({slug(n): persona(n, phrases) for n, phrases in enumerate(LISTS)}, version=1)
    resolver.phrases.install(resolver.phrases.compile(catalogue))
    return ServingContext(
        engines=service,
        resolver=resolver,
        decoder=Decoder(sampling),
        sampling=sampling,
        policy=SessionPolicy(turn=TurnPolicy(), max_out=MAX_OUT),
        ledger=UsageLedger(_write_nothing),
        budget=MemoryTokenBudget(_nothing_used),
        metrics=Metrics(),
        started=True,
    )


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def service() -> AsyncIterator[EngineService]:
    spec = EngineSpec(EngineRole.CHAT, str(MODEL), 2048, max_num_seqs=SESSIONS_AT_ONCE + 2)
    made = vllm_service([spec], str(CHECKOUT))
    try:
        await made.ensure_running()
        yield made
    finally:
        await made.aclose()


@dataclass
class Watched:
    """An engine that records its requests."""

    engine: Engine
    requests: list[GenerationRequest] = field(default_factory=list)
    cached: list[int] = field(default_factory=list)

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        first = True
        async with aclosing(self.engine.generate(request)) as deltas:
            async for delta in deltas:
                if first:
                    self.cached.append(delta.cached_tokens)
                first = False
                yield delta


def prompt_ids(engine: Engine, question: str, character: str = CHARACTERS[0]) -> list[int]:
    form = ChatFormat(engine.tokenizer)
    return [*form.persona(character), *form.turn(form.user(question, first=True), first=True)]


def compiled_phrases(engine: Engine, phrases: Sequence[str]) -> CompiledPhrases:
    compiled = PhraseStore(ChatFormat(engine.tokenizer)).compile(Catalogue(phrases=rules(phrases)))
    return compiled.without_persona


async def said(
    engine: Engine, prompt: Sequence[int], phrases: Sequence[str], max_tokens: int, sampling: Sampling = GREEDY
) -> Reply:
    """Read one reply to its end."""
    made = compiled_phrases(engine, phrases)
    name = f"phrases-{next(_numbers)}"
    plan = ReplyPlan(name, sampling, max_tokens, made.automaton, made.logit_bias, made.tokens_containing)
    reply = Reply(engine, prompt, plan)
    async with aclosing(reply.stream()) as pieces:
        async for _ in pieces:
            pass
    return reply


def ids_of(reply: Reply, engine: Engine) -> list[int]:
    return reply.released_ids(lambda text: list(engine.tokenizer.encode(text, add_special_tokens=False)))


async def generated(engine: Engine, prompt: Sequence[int], steps: int, forbidden: Iterable[int] = ()) -> list[int]:
    """Return the engine's own output, with `forbidden` tokens forbidden in every step."""
    bias = dict.fromkeys(forbidden, -100.0)
    request = GenerationRequest(f"phrases-{next(_numbers)}", prompt, steps, GREEDY, logit_bias=bias)
    async with aclosing(engine.generate(request)) as deltas:
        return [token async for delta in deltas for token in delta.token_ids]


# -- no leak ---------------------------------------------------------------------------------------


def leaks(text: str, phrases: Sequence[str]) -> list[str]:
    straight = text.replace("’", "'").casefold()
    return [phrase for phrase in phrases if phrase.casefold() in straight]


def recorded(line: Line, engine: Engine) -> list[str]:
    """Return the replies as the next turn's prompt contains them."""
    conversation, character = line.session._state.conversation, line.session._state.chosen
    assert conversation is not None
    assert character is not None
    prompt = str(
        engine.tokenizer.decode(conversation.chat_prefix(line.serving.resolver.resolve(character, line.session.caller)))
    )
    return [part.partition("<|im_end|>")[0] for part in prompt.split("<|im_start|>assistant\n")[1:]]


async def test_what_it_always_says_is_never_seen(service: EngineService) -> None:
    """Every list alone and all together: the frames, `final`, and the reply in the next turn's prompt."""
    serving = serving_with(service, RULES)
    turns: list[dict[str, object]] = []

    async def talk(number: int, questions: Sequence[str]) -> None:
        phrases = LISTS[number]
        line = Line(serving, UNLIMITED, patience=120)
        line.session.open()
        try:
            for question in questions:
                frames = await line.turn(persona=slug(number), user_utterance=question)
                text = "".join(frame["text"] for frame in frames if frame["type"] == "token")
                final = next(frame for frame in frames if frame["type"] == "final")["normalized_text"]
                usage = frames[-1]["usage"]
                assert frames[-1]["type"] == "done"
                assert usage["finish_reason"] in ("stop", "length")
                assert usage["completion_tokens"] <= MAX_OUT
                assert not leaks(text, phrases), (phrases, text)
                assert final == text
                turns.append({"list": number, "text": text, **usage})
            replies = recorded(line, service.engine(EngineRole.CHAT))
            assert len(replies) == len(questions)
            assert not [reply for reply in replies if leaks(reply, phrases)]
            check_order(line.frames)
        finally:
            await line.session.aclose()

    await asyncio.gather(*(talk(number, QUESTIONS) for number in range(len(LISTS))))
    reasons = Counter(str(turn["finish_reason"]) for turn in turns)
    by_list = [sum(int(str(turn["suppressed"])) for turn in turns if turn["list"] == n) for n in range(len(LISTS))]
    print(f"\n{len(turns)} turns, ended by {dict(reasons)}, taken back for each list {by_list}")
    assert len(turns) == len(LISTS) * len(QUESTIONS)
    assert sum(by_list) >= len(turns)  # partial matches occurred
    assert by_list[-1] >= len(QUESTIONS)
    empty = [turn for turn in turns if not str(turn["text"]).strip()]
    assert not empty


# -- no change to other text------------------------------------------------------------------------


def tempting(text: str) -> list[str]:
    """Create phrases that this text begins often and never completes, and phrases with its words reordered."""
    words = re.findall(r"\S+", text)
    followed = {f"{one} {two} zebra" for one, two in pairwise(words)}
    ends = {f"{word}q" for word in words if len(word) > 2} | {f" {word[:-1]}zz" for word in words if len(word) > 3}
    pairs = {f"{one} {two}" for one in words[:12] for two in words[:12]}
    return sorted(phrase for phrase in followed | ends | pairs if phrase.casefold() not in text.casefold())


@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_reply_that_holds_no_phrase_is_the_same_token_for_token(service: EngineService, question: str) -> None:
    engine = service.engine(EngineRole.CHAT)
    prompt = prompt_ids(engine, question)
    plain = await said(engine, prompt, (), 40)
    phrases = tempting(plain.released())
    assert len(phrases) > 20
    listed = await said(engine, prompt, phrases, 40)
    assert ids_of(listed, engine) == ids_of(plain, engine) != []
    assert listed.released() == plain.released()
    assert (listed.requests, listed.suppressed) == (1, 0)
    assert listed.held_deltas > 5  # tempted


# -- retries ---------------------------------------------------------------------------------------


def begins(engine: Engine, ids: Sequence[int], phrase: str) -> int | None:
    """Return the index of the token in which the first occurrence of a phrase begins, or None."""
    text = str(engine.tokenizer.decode(list(ids)))
    at = text.casefold().find(phrase.casefold())
    if at < 0:
        return None
    return max(n for n in range(len(ids)) if len(str(engine.tokenizer.decode(list(ids[:n])))) <= at)


async def avoiding(engine: Engine, prompt: Sequence[int], phrase: str, steps: int) -> tuple[list[int], int]:
    """Reference implementation, slow: if the phrase is in a whole reply, forbid its first token there and generate
    the rest again.

    Returns:
        (token ids, number of retries).
    """
    kept: list[int] = []
    forbidden: dict[int, set[int]] = {}
    for times in count():
        reply = [*kept, *await generated(engine, [*prompt, *kept], steps - len(kept))] if len(kept) < steps else kept
        place = begins(engine, reply, phrase)
        if place is None:
            return reply, times
        forbidden = {at: tokens for at, tokens in forbidden.items() if at <= place}
        forbidden.setdefault(place, set()).add(reply[place])
        one = await generated(engine, [*prompt, *reply[:place]], 1, forbidden[place])
        kept = [*reply[:place], *one]
        if not one:
            return kept, times + 1
    raise AssertionError


def a_phrase_of(engine: Engine, ids: Sequence[int]) -> str:
    """Return two words from the middle of a reply, each one token."""
    for at in range(6, len(ids) - 6):
        phrase = str(engine.tokenizer.decode(list(ids[at : at + 2])))
        if re.fullmatch(r" \w+ \w+", phrase):
            return phrase
    raise AssertionError(f"no phrase in {engine.tokenizer.decode(list(ids))!r}")


@pytest.mark.parametrize("question", QUESTIONS[:4])
async def test_a_rewound_reply_goes_on_as_if_the_phrase_had_never_come_up(
    service: EngineService, question: str
) -> None:
    steps = 40
    engine = Watched(service.engine(EngineRole.CHAT))
    # Long enough for whole cached blocks.
    prompt = prompt_ids(service.engine(EngineRole.CHAT), question, " ".join([CHARACTERS[0], *CHARACTERS * 3]))
    plain = await generated(service.engine(EngineRole.CHAT), prompt, steps)
    phrase = a_phrase_of(service.engine(EngineRole.CHAT), plain)
    expected, times = await avoiding(service.engine(EngineRole.CHAT), prompt, phrase, steps)
    assert times >= 1
    assert expected != plain

    reply = await said(engine, prompt, [phrase], steps)  # type: ignore[arg-type]
    assert ids_of(reply, service.engine(EngineRole.CHAT)) == expected
    assert reply.released() == service.engine(EngineRole.CHAT).tokenizer.decode(expected)
    assert reply.suppressed == times
    # Kept tokens count, removed tokens do not.
    assert reply.completion_tokens == len(expected)
    assert engine.requests[0].max_tokens == steps
    for number, (request, cached) in enumerate(zip(engine.requests, engine.cached, strict=True)):
        said_before = len(request.prompt_ids) - len(prompt)
        assert (request.max_tokens == 1 and request.logit_bias) or request.max_tokens == steps - said_before
        # All but the last block of 32 tokens comes from the cache.
        assert not number or len(request.prompt_ids) - 33 <= cached < len(request.prompt_ids)


async def test_what_is_taken_back_is_counted_and_costs_no_length(service: EngineService) -> None:
    reply = await said(
        service.engine(EngineRole.CHAT), prompt_ids(service.engine(EngineRole.CHAT), QUESTIONS[1]), ("the", "and"), 40
    )
    assert reply.suppressed > 1
    assert reply.suppressed + 1 < reply.requests <= 2 * reply.suppressed + 1
    assert reply.finish_reason == "length"
    assert reply.completion_tokens == 40
