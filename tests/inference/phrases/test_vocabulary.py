from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

import pytest

from inference.engines.base import GenerationRequest
from inference.engines.sampling import Sampling
from inference.phrases.guard import PhraseAutomaton
from inference.phrases.vocabulary import TokensContaining, Vocabulary
from inference.reply import MAX_BIASES, RETRIES_BEFORE_FORBIDDING, RETRIES_PER_REPLY, Reply
from inference.reply_plan import ReplyPlan
from personas.snapshot import PhraseRule
from tests.fakes.engine import FakeEngine, tiny_tokenizer
from tests.fakes.serving import catalogue, talking

TOKENIZER = tiny_tokenizer()
VOCABULARY = Vocabulary(TOKENIZER)
TEXTS = {token: str(TOKENIZER.decode([token])) for token in range(len(TOKENIZER))}


def compiled(*phrases: str | PhraseRule) -> PhraseAutomaton:
    rules = [phrase if isinstance(phrase, PhraseRule) else PhraseRule(phrase) for phrase in phrases]
    return PhraseAutomaton.build(rules)


def spelled(phrase: str, rule: PhraseRule | None = None) -> set[str]:
    return {TEXTS[token] for token in VOCABULARY.tokens_containing(compiled(rule or phrase))(phrase)}


def ids(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("phrase", ["h", "H", "the", "are", "."])
def test_the_tokens_that_hold_a_phrase_whole(phrase: str) -> None:
    assert spelled(phrase) == {text for text in TEXTS.values() if phrase.casefold() in text.casefold()} != set()


def test_a_phrase_of_several_tokens_has_none() -> None:
    assert spelled("the weather is fine") == set()


def test_marks_count() -> None:
    assert {"h", "H"} <= spelled("h")
    assert "H" not in spelled("h", PhraseRule("h", case_sensitive=True))
    # What follows decides whether it is a word.
    assert spelled("the", PhraseRule("the", whole_word=True)) == set()


class Stubborn(FakeEngine):
    """Wants to say the first token of ``wish`` that it may, always."""

    def __init__(self, *wish: str) -> None:
        super().__init__()
        self.wish = [token for text in wish for token in ids(text)]
        self.answered: list[dict[int, float]] = []

    def _tokens(self, request: GenerationRequest) -> tuple[Sequence[int], str]:  # type: ignore[override]
        self.answered.append(dict(request.logit_bias))
        token = next(token for token in self.wish if request.logit_bias.get(token, 0.0) > -100)
        return [token] * request.max_tokens, "length"


async def said(engine: FakeEngine, automaton: PhraseAutomaton, spelling: TokensContaining, max_tokens: int) -> Reply:
    one = Reply(engine, [1], ReplyPlan("r", Sampling(), max_tokens, automaton, {7: -3.0}, spelling))
    async with aclosing(one.stream()) as pieces:
        async for _ in pieces:
            pass
    return one


async def test_a_token_that_is_taken_back_at_every_step_is_drawn_no_more() -> None:
    """Without it every place would take a retry, and the reply run out of them."""
    automaton = compiled("h")
    engine = Stubborn("h", "H", "a")
    one = await said(engine, automaton, VOCABULARY.tokens_containing(automaton), 4 * RETRIES_PER_REPLY)
    assert one.released() == "a" * 4 * RETRIES_PER_REPLY
    assert one.suppressed == RETRIES_BEFORE_FORBIDDING + 1
    assert engine.answered[0] == {7: -3.0}
    assert all(bias[7] == -3.0 and len(bias) <= MAX_BIASES for bias in engine.answered)
    few = await said(Stubborn("h", "H", "a"), automaton, VOCABULARY.tokens_containing(automaton), 2)
    assert few.released() == "aa"


async def test_until_then_it_is_forbidden_at_its_place_alone() -> None:
    automaton = compiled("h")
    engine = Stubborn("h", "a")
    await said(engine, automaton, VOCABULARY.tokens_containing(automaton), RETRIES_BEFORE_FORBIDDING)
    assert engine.answered[2::2] == [{7: -3.0}] * len(engine.answered[2::2])


async def test_a_reply_whose_retries_are_spent_reads_well() -> None:
    """Nothing is known of its tokens: the rest is cut, and no blank is left doubled."""
    one = await said(FakeEngine(reply="we are the best of the rest " * 99), compiled("the"), lambda _: frozenset(), 400)
    assert one.suppressed > RETRIES_PER_REPLY
    assert "the" not in one.released()
    assert "  " not in one.released()
    assert "we are best of rest" in one.released()


async def test_where_the_context_is_full_the_reply_ends_with_its_length() -> None:
    engine = FakeEngine(reply="Hello there, how are you today?", max_model_len=8)
    one = await said(engine, compiled("honey"), VOCABULARY.tokens_containing(compiled("honey")), 50)
    assert (one.finish_reason, one.completion_tokens, one.requests) == ("length", 7, 1)


async def test_a_session_knows_the_tokens() -> None:
    chat = Stubborn("h", "H", "a")
    async with talking(chat, catalogue=catalogue(phrases=(PhraseRule("h"),))) as line:
        frames = await line.turn()
    assert line.text() == "a" * 150
    assert frames[-1]["usage"]["suppressed"] == RETRIES_BEFORE_FORBIDDING + 1
