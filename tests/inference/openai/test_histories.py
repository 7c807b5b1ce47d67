"""Whole histories with each request: found again, reused to the last token, never mixed; and continued replies."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from inference.openai.messages import Message, prompt_of
from inference.openai.records import Record, RecordOwner, RecordStore, prompt_hash
from inference.prompting.history import ExchangeText
from personas.snapshot import PhraseRule
from tests.fakes.engine import BLOCK, FakeEngine
from tests.fakes.serving import UNLIMITED, catalogue
from tests.inference.openai.exchange import HI, Surface, surface
from tests.inference.session_lines import starts_with, text_of


def said(reply: Any) -> str:
    text: str = reply.json["choices"][0]["message"]["content"]
    return text


async def talk(served: Surface, turns: int, **fields: Any) -> list[dict[str, str]]:
    """Chat for some turns, the whole history each time."""
    messages: list[dict[str, str]] = []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"line {turn}"})
        reply = await served.chat_completion(messages=messages, **fields)
        messages.append({"role": "assistant", "content": said(reply)})
    return messages


async def test_the_next_prompt_begins_with_all_that_was_said() -> None:
    # Ids that no encoder gives: "He" and "llo" spelled letter by letter.
    ids = [FakeEngine().tokenizer.convert_tokens_to_ids(letter) for letter in "Hello"]
    async with surface(FakeEngine(reply=ids)) as served:
        await talk(served, 4)
        prompts = [[*request.prompt_ids] for request in served.chat.requests]
        for before, after in pairwise(prompts):
            assert starts_with(after, [*before, *ids])
        reply = await served.chat_completion(messages=[*await talk(served, 2), *HI])
        usage = reply.json["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] >= (len(prompts[1]) // BLOCK - 1) * BLOCK


async def test_white_space_and_a_changed_last_reply_keep_the_rest() -> None:
    ids = [FakeEngine().tokenizer.convert_tokens_to_ids(letter) for letter in "Hello"]
    async with surface(FakeEngine(reply=ids)) as served:
        messages = await talk(served, 2)
        first = [*served.chat.requests[1].prompt_ids]
        messages[1]["content"] = "  Hello \n"
        messages[3]["content"] = "Hel"  # the user interrupted
        await served.chat_completion(messages=[*messages, *HI])
        assert starts_with(served.chat.requests[-1].prompt_ids, first)


async def test_branches_of_one_history_never_mix() -> None:
    async with surface() as served:
        messages = await talk(served, 2)
        for text in ("left", "right"):
            await served.chat_completion(messages=[*messages, {"role": "user", "content": text}])
        await served.chat_completion(messages=[*messages, {"role": "user", "content": "left"}])
        left, right, again = served.chat.requests[-3:]
        assert [*left.prompt_ids] == [*again.prompt_ids]
        assert "left" not in text_of(right)


async def test_records_are_not_shared_between_keys_models_and_system_texts() -> None:
    ids = [FakeEngine().tokenizer.convert_tokens_to_ids(letter) for letter in "Hello"]
    async with surface(FakeEngine(reply=ids)) as served:
        served.callers["two"] = replace(UNLIMITED, prefix="two")
        messages = [*await talk(served, 1), *HI]
        fields = {"model": "anna", "messages": messages}
        await served.post("/v1/chat/completions", fields, key="two")
        await served.chat_completion(messages=[{"role": "system", "content": "x"}, *messages])
        await served.chat_completion(messages=messages, model="max")
        await served.chat_completion(messages=messages)
        spelled = [
            " ".join(map(str, ids)) in " ".join(map(str, request.prompt_ids)) for request in served.chat.requests
        ]
        assert spelled == [False, False, False, False, True]


async def test_without_records_everything_still_works() -> None:
    async with surface(records=0) as served:
        assert len(await talk(served, 3)) == 6
        assert len(served.context.records) == 0


def owner(key: str) -> RecordOwner:
    return RecordOwner(key, "anna", prompt_hash("You are Anna."))


def record(*replies: str) -> Record:
    class Fixed:
        tokens = 10

    return Record(Fixed(), tuple(ExchangeText(None, reply) for reply in replies), "a")  # type: ignore[arg-type]


def kept(store: RecordStore, key: str, names: str) -> str:
    """Return the names of the records that the store still has."""
    return "".join(name for name in names if store.find(owner(key), record(name).exchanges) is not None)


def test_the_store_is_bounded_in_number_and_memory() -> None:
    store = RecordStore(2)
    for name in "abc":
        store.keep(owner("k"), record(name))
    assert kept(store, "k", "abc") == "bc"
    assert store.find(owner("other"), record("b").exchanges) is None
    assert store.find(RecordOwner("k", "anna", prompt_hash("another")), record("b").exchanges) is None
    found = store.find(owner("k"), record("b", "x", "y").exchanges)
    assert found is not None
    assert found.exchanges == record("b").exchanges
    store = RecordStore(100, max_bytes=2 * (10 * 32 + 2 * (1 + 64)))
    for name in "abca":
        store.keep(owner("k"), record(name))
    assert (len(store), kept(store, "k", "abc")) == (2, "ac")


def test_a_key_displaces_no_records_of_others() -> None:
    store = RecordStore(4)
    store.keep(owner("quiet"), record("a"))
    for name in "abcdefgh":
        store.keep(owner("loud"), record(name))
    assert (kept(store, "quiet", "a"), kept(store, "loud", "abcdefgh")) == ("a", "fgh")


def test_messages_become_exchanges() -> None:
    prompt = prompt_of([
        Message("system", "A"), Message("system", "B"), Message("assistant", "hello"), Message("user", "one"),
        Message("user", "two"), Message("assistant", ""), Message("tool", "TOOL RESULT: 5"),
        Message("assistant", "five"), Message("system", "late"),
    ])  # fmt: skip
    assert prompt.system == "A\n\nB"
    assert prompt.exchanges == (ExchangeText(None, "hello"), ExchangeText("one\ntwo\nTOOL RESULT: 5", "five"))
    assert (prompt.user, prompt.prefill) == ("late", None)
    prompt = prompt_of([Message("user", "one"), Message("assistant", "tw")])
    assert (prompt.exchanges, prompt.user, prompt.prefill) == ((), "one", "tw")


# -- continued replies ---------------------------------------------------------------------------------------------

CONTINUED = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well, oh"}]


async def test_a_last_assistant_message_is_continued_and_recorded_as_one() -> None:
    async with surface(FakeEngine(reply=" dear. Fine.")) as served:
        reply = await served.chat_completion(messages=CONTINUED)
        assert said(reply) == " dear. Fine."
        assert text_of(served.chat.requests[0]).endswith("Well, oh")
        whole = [CONTINUED[0], {"role": "assistant", "content": "Well, oh dear. Fine."}, *HI]
        await served.chat_completion(messages=whole)
        first = [*served.chat.requests[0].prompt_ids]
        assert starts_with(served.chat.requests[1].prompt_ids, first)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reply", [" honey, hello", " honeymoon is over", "h", " ho"])
async def test_no_banned_phrase_forms_over_the_seam(stream: bool, reply: str) -> None:
    lists = catalogue(phrases=(PhraseRule("oh honey"), PhraseRule("well", whole_word=True)))
    async with surface(FakeEngine(reply=reply), catalogue=lists) as served:
        answer = await served.chat_completion(messages=CONTINUED, stream=stream)
        text = answer.text if stream else said(answer)
        assert "oh honey" not in ("Well, oh" + text).lower()
        if reply in ("h", " ho"):
            assert text == reply
        await served.all_free()
