"""Stored responses: what a request that continues one says, and the store's bounds."""

from __future__ import annotations

import pytest

from inference.openai import responses_store
from inference.openai.responses_requests import Item
from inference.openai.responses_store import MAX_AGE_S, ResponseStore, StoredResponse


def user(text: str) -> Item:
    return Item("user", text)


def assistant(text: str) -> Item:
    return Item("assistant", text)


def call(call_id: str) -> Item:
    return Item("call", "{}", call_id, "look")


def result(call_id: str) -> Item:
    return Item("result", "a cat", call_id)


def test_new_input_follows_the_stored_conversation() -> None:
    stored = StoredResponse((user("hi"),), (assistant("Hello there"),))
    assert stored.continued([user("and?")]) == (user("hi"), assistant("Hello there"), user("and?"))
    assert stored.continued([]) == (user("hi"), assistant("Hello there"))


def test_a_leading_assistant_message_replaces_the_stored_reply() -> None:
    stored = StoredResponse((user("hi"),), (assistant("Hello there, how are you?"),))
    assert stored.continued([assistant("Hello"), user("stop")]) == (user("hi"), assistant("Hello"), user("stop"))


def test_the_stored_response_itself_never_changes() -> None:
    stored = StoredResponse((user("hi"),), (assistant("Hello there"),))
    stored.continued([assistant("Hel"), user("a")])
    assert stored.continued([user("b")])[1] == assistant("Hello there")


def test_a_call_that_the_client_repeats_is_taken_once() -> None:
    stored = StoredResponse((user("what is there?"),), (call("call_1"),))
    wanted = (user("what is there?"), call("call_1"), result("call_1"))
    assert stored.continued([result("call_1")]) == wanted
    assert stored.continued([call("call_1"), result("call_1")]) == wanted


def test_a_call_without_a_result_is_kept() -> None:
    stored = StoredResponse((user("what is there?"),), (call("call_1"),))
    assert stored.continued([user("never mind")])[1:] == (call("call_1"), user("never mind"))


def test_owners_do_not_see_each_others_responses() -> None:
    store = ResponseStore(10, 10_000)
    store.put("ann", "resp_1", StoredResponse((user("hi"),), ()))
    assert store.get("bob", "resp_1") is None
    assert store.get("ann", "resp_1") is not None
    assert store.get("ann", "resp_2") is None


def test_the_number_of_responses_is_bounded_and_the_least_used_goes_first() -> None:
    store = ResponseStore(3, 1_000_000)
    for number in range(3):
        store.put("ann", f"resp_{number}", StoredResponse((user("hi"),), ()))
    store.get("ann", "resp_0")
    store.put("ann", "resp_3", StoredResponse((user("hi"),), ()))
    assert [store.get("ann", f"resp_{n}") is not None for n in range(4)] == [True, False, True, True]
    assert len(store) == 3


def test_an_owner_who_stores_much_displaces_only_his_own() -> None:
    store = ResponseStore(4, 1_000_000)
    store.put("bob", "resp_b", StoredResponse((user("hi"),), ()))
    for number in range(20):
        store.put("ann", f"resp_{number}", StoredResponse((user("hi"),), ()))
    assert store.get("bob", "resp_b") is not None
    assert len(store) == 4

    narrow = ResponseStore(100, 10_000)
    narrow.put("bob", "resp_b", StoredResponse((user("x" * 1000),), ()))
    for number in range(20):
        narrow.put("ann", f"resp_{number}", StoredResponse((user("x" * 2000),), ()))
    assert narrow.get("bob", "resp_b") is not None
    assert narrow.characters <= 10_000
    assert narrow.get("ann", "resp_19") is not None


def test_a_response_is_forgotten_after_an_hour() -> None:
    now = 0.0
    store = ResponseStore(10, 10_000, clock=lambda: now)
    store.put("ann", "resp_1", StoredResponse((user("hi"),), ()))
    store.put("ann", "resp_2", StoredResponse((user("hi"),), ()))
    now = MAX_AGE_S - 1
    assert store.get("ann", "resp_1") is not None
    now = MAX_AGE_S + 1
    assert store.get("ann", "resp_1") is None
    store.put("ann", "resp_3", StoredResponse((user("hi"),), ()))
    assert len(store) == 1, "what is too old makes room without being asked for"


def test_a_long_conversation_loses_its_oldest_messages_but_not_the_persona(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses_store, "MAX_CONVERSATION_CHARS", 1000)
    system = Item("system", "You are Mia.")
    said = tuple(user(f"{number} " + "x" * 100) for number in range(20))
    store = ResponseStore(10, 1_000_000)
    store.put("ann", "resp_1", StoredResponse((system, *said), (assistant("ok"),)))
    stored = store.get("ann", "resp_1")
    assert stored is not None
    assert stored.items[0] == system
    assert stored.items[-1] == said[-1]
    assert stored.output == (assistant("ok"),)
    assert 2 < len(stored.items) < 10
    assert store.characters <= 1000
