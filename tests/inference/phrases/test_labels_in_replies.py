"""Speaker labels through a whole turn: what a client gets and what the next prompt remembers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inference.engines.sampling import Sampling
from inference.phrases.automaton import PhraseAutomaton
from inference.phrases.stops import speaker_labels
from inference.reply import Reply
from inference.reply_plan import ReplyPlan
from personas.snapshot import PhraseRule
from tests.fakes.engine import FakeEngine, tiny_tokenizer
from tests.fakes.serving import ANNA, catalogue, talking


def encode(text: str) -> list[int]:
    return list(tiny_tokenizer().encode(text, add_special_tokens=False))


async def test_a_label_is_removed_without_asking_the_engine_again() -> None:
    automaton = PhraseAutomaton.build([PhraseRule("honey")])
    plan = ReplyPlan("r", Sampling(), 50, automaton, {}, matchers=speaker_labels("Bob", ("Mia",)))
    one = Reply(FakeEngine(reply="Assistant: Hello there"), [1], plan)
    assert "".join([piece async for piece in one.stream()]) == "Hello there"
    assert (one.suppressed, one.requests, one.finish_reason) == (0, 1, "stop")
    assert one.released_ids(encode) == encode("Hello there")


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        ("Anna: Hello there", "Hello there"),
        ("**Anna:** Hello there", "Hello there"),
        ("Hello there\nSam: hi", "Hello there\n"),
        ("Hello there\nUser: hi", "Hello there\n"),
        ("Hello Sam: there", "Hello Sam: there"),
    ],
)
@pytest.mark.parametrize("tokens_per_delta", [1, 5])
async def test_labels_of_the_persona_and_the_user(reply: str, shown: str, tokens_per_delta: int) -> None:
    chat = FakeEngine(reply=reply, tokens_per_delta=tokens_per_delta)
    async with talking(chat) as line:
        frames = await line.turn(persona="anna", user_identity="Sam")
        assert line.text() == shown
        assert frames[-1]["usage"]["finish_reason"] == "stop"
        assert frames[-1]["usage"]["suppressed"] == 0
        chat.reply = "Yes."
        await line.turn(user_identity="Kim")
        prompt = str(tiny_tokenizer().decode(list(chat.requests[-1].prompt_ids)))
        assert "Anna:" not in prompt
        chat.reply = "I\nSam: no\nKim: yes"
        await line.turn()
    assert line.text().endswith("I\nSam: no\n")


@pytest.mark.parametrize(("label_stops", "shown"), [(True, "Hi.\n"), (False, "Hi.\nUser: yes")])
async def test_a_persona_switches_label_stops_off(label_stops: bool, shown: str) -> None:
    persona = replace(ANNA, label_stops=label_stops)
    async with talking(FakeEngine(reply="Hi.\nUser: yes"), catalogue=catalogue(persona)) as line:
        await line.turn(persona="anna")
        assert line.text() == shown


@pytest.mark.parametrize(("skipped", "said"), [(frozenset(), "smiles Hi."), (frozenset({"actions"}), "Hi.")])
async def test_a_persona_does_not_say_its_actions(skipped: frozenset[str], said: str) -> None:
    persona = replace(ANNA, output_style="speech", skipped_in_speech=skipped)
    async with talking(FakeEngine(reply="*smiles* Hi"), catalogue=catalogue(persona)) as line:
        frames = await line.turn(persona="anna")
        assert line.text() == said
        assert frames[-2]["normalized_text"] == said
