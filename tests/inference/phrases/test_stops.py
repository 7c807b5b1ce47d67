"""Speaker labels and text stops."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inference.phrases.automaton import Kind
from inference.phrases.guard import Hit, PhraseAutomaton, PhraseGuard
from inference.phrases.stops import conversation_labels, speaker_labels, text_stops
from tests.fakes.serving import ANNA
from tests.inference.phrases.cutting import at_every_split

BOB_AND_MIA = speaker_labels("Bob", ("Mia",))

# what a model writes: what the reader gets
REPLIES = {
    # the character's own label goes
    "Assistant: Hello": "Hello",
    "assistant: hello": "hello",
    "Assistant:Hello": "Hello",
    "Assistant:\nHello": "Hello",
    "Assistant:\n\n  Hello": "Hello",
    "  Assistant: Hello": "  Hello",
    "\nMia: Hello": "\nHello",
    "Mia: Hello": "Hello",
    "MIA: Hello": "Hello",
    "Mia : Hello": "Hello",
    "mia：你好": "你好",
    "**Mia:** Hello": "Hello",
    "**Mia**: Hello": "Hello",
    "*Mia:* Hello": "Hello",
    "__Mia:__ Hello": "Hello",
    "Assistant: Mia: Hello": "Hello",
    "Mia:": "",
    "Mia: Assistant: Assistant: Hello": "Hello",
    # the user's label ends the reply
    "Hello\nUser: hi": "Hello\n",
    "Hello\n\n  user: hi": "Hello\n\n  ",
    "Hello\nBob: hi": "Hello\n",
    "Hello\nBOB : hi": "Hello\n",
    "Hello\n**Bob:** hi": "Hello\n",
    "Hello\n**Bob**: hi": "Hello\n",
    "Hello\nBob：hi": "Hello\n",
    "Hello\r\nBob: hi": "Hello\r\n",
    "Hello\u2028Bob: hi": "Hello\u2028",
    "User: hi": "",
    "Bob: hi": "",
    "Mia: Hello\nBob: hi\nMia: yes": "Hello\n",
    "Hello\nB\u200bob: hi": "Hello\n",
    # a later line of the assistant's too, as ever
    "Hello\nAssistant: more": "Hello\n",
    # and what is no label
    "Hello Bob: hi": "Hello Bob: hi",
    "The user: hi": "The user: hi",
    "Users: hi\nBobby: hi": "Users: hi\nBobby: hi",
    "Assistants: hi": "Assistants: hi",
    "Hello\nMia: more": "Hello\nMia: more",
    "Mia is my name: Mia": "Mia is my name: Mia",
    "Usually\nBob; User\nuser": "Usually\nBob; User\nuser",
    "*Mia smiles* Hello": "*Mia smiles* Hello",
}


@pytest.mark.parametrize("text", REPLIES)
def test_labels_of_a_conversation(text: str) -> None:
    left, _ = at_every_split(text, ["honey"], BOB_AND_MIA)
    assert left == REPLIES[text]


@pytest.mark.parametrize("text", REPLIES)
def test_without_labels_everything_is_text(text: str) -> None:
    assert at_every_split(text) == (text, [])


def test_names_that_are_written_in_more_than_one_way() -> None:
    labels = speaker_labels("Zoe\u0308 O’Neil", ("Jean\u2011Luc",))
    assert at_every_split("jean-luc: oui\nzoë o'neil: non", (), labels)[0] == "oui\n"


def test_a_name_of_user_and_character_is_a_label_at_the_start_and_a_stop_later() -> None:
    labels = speaker_labels("Mia", ("Mia",))
    assert at_every_split("Mia: Hello\nMia: hi", (), labels)[0] == "Hello\n"


@pytest.mark.parametrize("name", ["", " ", "\u200b", None])
def test_a_name_of_nothing_is_no_label(name: str | None) -> None:
    text = ": hello\n: you"
    assert at_every_split(text, (), speaker_labels(name, (name,) if name is not None else ())) == (text, [])


def test_a_phrase_counts_inside_and_behind_a_label() -> None:
    assert at_every_split("Mia: oh honey, no\nBob: oh honey", ["oh honey"], BOB_AND_MIA) == (
        ", no\n",
        ["Mia:", "oh honey", "Bob:"],
    )
    assert at_every_split("oh honey Mia: hi", ["oh honey"], BOB_AND_MIA) == ("hi", ["oh honey", "Mia:"])


def test_what_a_hit_says() -> None:
    guard = PhraseGuard(PhraseAutomaton.build([]), BOB_AND_MIA)
    assert guard.feed("Mi") == ("", None)
    assert guard.feed("a: hi") == ("", Hit(0, 4, "Mia:", Kind.LABEL))
    assert guard.skip() == ("hi", None)
    assert guard.position == 7
    assert guard.feed("\n\n Us") == ("\n\n ", None)
    assert guard.feed("ually") == ("Usually", None)
    assert guard.feed("\nBob: ") == ("\n", Hit(18, 22, "Bob:", Kind.STOP))


def test_labels_of_a_stored_persona() -> None:
    assert at_every_split("Anna: hi\nBob: x", (), conversation_labels(ANNA, "Bob"))[0] == "hi\n"
    assert at_every_split("Anna: hi\nUser: x", (), conversation_labels(None, None))[0] == "Anna: hi\n"
    nicknamed = replace(ANNA, nickname="Annie")
    assert at_every_split("Annie: Anna: hi", (), conversation_labels(nicknamed, None))[0] == "hi"


def test_a_persona_can_switch_labels_off() -> None:
    script = "Anna: hi\nBob: x\nUser: y\nAssistant: z"
    assert at_every_split(script, (), conversation_labels(replace(ANNA, label_stops=False), "Bob")) == (script, [])


def test_text_stops_keep_their_case_and_may_stand_anywhere() -> None:
    stops = (text_stops(["<END>", "<END>", "\u200b"]),)
    assert at_every_split("a <end> b<END> c", (), stops) == ("a <end> b", ["<END>"])
