"""Character cards as JSON documents: read leniently, written by the specification.

Sources: Character Card V1, V2 (malfoyslastname/character-card-spec-v2) and V3 (kwaroran/character-card-spec-v3); the
field names of Pygmalion and text-generation-webui. Fields that have no place in a card travel in ``extensions.yap``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from personas.card_prompt import PROMPT_FIELDS, PromptTooLong, compose
from personas.snapshot import SPEECH_KINDS

Spec = Literal["v2", "v3"]
SPECS: dict[Spec, tuple[str, str]] = {"v2": ("chara_card_v2", "2.0"), "v3": ("chara_card_v3", "3.0")}
EXTENSION = "yap"
MAX_NAME_CHARS = 100
MAX_FIELD_CHARS = 50_000  # of each field, and of the prompt that the fields make

_V1 = ("name", "description", "personality", "scenario", "first_mes", "mes_example")
_PYGMALION = {
    "char_name": "name",
    "char_persona": "description",
    "char_greeting": "first_mes",
    "world_scenario": "scenario",
    "example_dialogue": "mes_example",
}
_TEXTS = (*_V1, "creator_notes", "system_prompt", "post_history_instructions", "creator", "character_version")
_REQUIRED: dict[str, Any] = dict.fromkeys(_TEXTS, "") | {
    "alternate_greetings": [],
    "group_only_greetings": [],
    "tags": [],
    "extensions": {},
}


class CardRefused(ValueError):
    """A file that is no usable card. The message is the reason, for the operator who uploaded the file."""


@dataclass(frozen=True, slots=True)
class Card:
    """A persona as a card file holds it.

    Args:
        name: One line.
        chat_prompt: With macros, see ``personas.macros``.
        document: The card as imported, filled up to the specification, for export. Empty: a persona made in the admin.
        nickname: The text of ``{{char}}``; empty: the name.
        slug, gender, personality, output_style: None where the card, not written by Yap, does not say.
        label_stops, skipped_in_speech: Options of a persona; None as above.
        portrait: The bytes of the picture; empty: none.
        notes: Sentences for the operator about repairs made while reading.
    """

    name: str
    chat_prompt: str
    document: dict[str, Any]
    nickname: str = ""
    slug: str | None = None
    gender: str | None = None
    personality: str | None = None
    tool_prompt: str = ""
    sampling: Mapping[str, float] = field(default_factory=dict)
    output_style: str | None = None
    label_stops: bool | None = None
    skipped_in_speech: frozenset[str] | None = None
    portrait: bytes = b""
    notes: tuple[str, ...] = field(default=(), compare=False)


def parse(document: Mapping[str, Any]) -> Card:
    """Return the card in a JSON document. Raises :class:`CardRefused` with a reason that names the field."""
    whole = dict(document)
    spec, notes = whole.pop("spec", None), []
    whole.pop("spec_version", None)
    if not isinstance(whole.get("data"), dict):
        whole = {"data": _flat(whole)}  # V1, or a V2 card without its data object
    elif spec is not None and spec not in {name for name, _ in SPECS.values()}:
        notes.append(f"The card's spec is unknown ({str(spec)[:40]!r}): read as Character Card V3.")
    data = _filled(whole["data"])
    name = data["name"] = " ".join(data["name"].split())
    if not name:
        raise CardRefused("the card's name is missing")
    if len(name) > MAX_NAME_CHARS:
        raise CardRefused(f"the card's name is longer than {MAX_NAME_CHARS} characters")
    nickname = " ".join(data.get("nickname", "").split())
    if len(nickname) > MAX_NAME_CHARS:
        raise CardRefused(f"the card's nickname is longer than {MAX_NAME_CHARS} characters")
    extensions = data["extensions"]
    own = extensions.pop(EXTENSION, {}) if isinstance(extensions, dict) else {}
    rest = {key: value for key, value in whole.items() if key not in (*_V1, "data")}
    try:
        chat_prompt = compose(data, MAX_FIELD_CHARS)
    except PromptTooLong as error:
        raise CardRefused(str(error)) from None
    return Card(
        name=name,
        nickname=nickname,
        chat_prompt=chat_prompt,
        document={**rest, "data": data},
        notes=tuple(notes),
        **_own_fields(own),
    )


def build(card: Card, spec: Spec = "v3") -> dict[str, Any]:
    """Return the whole card by its specification, ready for JSON.

    Where the card's fields make the prompt still, each comes back as imported. An edited prompt, or that of a persona
    made in the admin, becomes the card's system prompt, and the other prompt fields are empty.
    """
    whole = copy.deepcopy(card.document)
    data = _filled(whole.get("data", {}))
    data["name"] = card.name
    if card.nickname or "nickname" in data:
        data["nickname"] = card.nickname
    if not _makes(data, card.chat_prompt):
        data.update(dict.fromkeys(PROMPT_FIELDS, ""), system_prompt=card.chat_prompt)
    own: dict[str, Any] = {
        "slug": card.slug,
        "gender": card.gender,
        "personality": card.personality,
        "tool_prompt": card.tool_prompt,
        "sampling": dict(card.sampling),
        "output_style": card.output_style,
        "skipped_in_speech": sorted(card.skipped_in_speech or ()),
    }
    own = {key: value for key, value in own.items() if value}
    if card.label_stops is False:
        own["label_stops"] = False
    if own:
        if not isinstance(data["extensions"], dict):
            data["extensions"] = {"imported": data["extensions"]} if data["extensions"] else {}
        data["extensions"][EXTENSION] = own
    name, version = SPECS[spec]
    return {**whole, "spec": name, "spec_version": version, "data": data}


def _makes(data: Mapping[str, Any], chat_prompt: str) -> bool:
    try:
        return compose(data, MAX_FIELD_CHARS) == chat_prompt
    except PromptTooLong:
        return False


def _flat(whole: dict[str, Any]) -> dict[str, Any]:
    data = {_PYGMALION.get(key, key): value for key, value in whole.items() if value is not None}
    if not isinstance(data.get("name"), str) or not any(key in data for key in _V1[1:]):
        raise CardRefused("the file is not a character card (no data, and no name with a description)")
    return data


def _filled(given: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with every required field. Prompt fields are text within bounds; any other is kept whatever its type."""
    data = copy.deepcopy(_REQUIRED) | {key: copy.deepcopy(value) for key, value in given.items() if value is not None}
    for key in ("name", "nickname", *PROMPT_FIELDS):
        value = data.get(key, "")
        if not isinstance(value, str):
            raise CardRefused(f"the card's {key} is not text")
        if len(value) > MAX_FIELD_CHARS:
            raise CardRefused(f"the card's {key} is longer than {MAX_FIELD_CHARS} characters")
    return data


def _own_fields(own: Any) -> dict[str, Any]:
    """The fields of ``extensions.yap``, checked by type; the persona's own validation checks their values."""
    place = f"extensions.{EXTENSION}"
    if not isinstance(own, dict):
        raise CardRefused(f"{place} is not an object")
    found: dict[str, Any] = {}
    for key in ("slug", "gender", "personality", "tool_prompt", "output_style"):
        if key in own:
            if not isinstance(own[key], str):
                raise CardRefused(f"{place}.{key} is not text")
            found[key] = own[key]
    sampling = own.get("sampling", {})
    if not isinstance(sampling, dict) or not all(type(value) in (int, float) for value in sampling.values()):
        raise CardRefused(f"{place}.sampling is not an object of numbers")
    found["sampling"] = sampling
    if "label_stops" in own:
        if not isinstance(own["label_stops"], bool):
            raise CardRefused(f"{place}.label_stops is not true or false")
        found["label_stops"] = own["label_stops"]
    if "skipped_in_speech" in own:
        kinds = own["skipped_in_speech"]
        if not isinstance(kinds, list) or not all(kind in SPEECH_KINDS for kind in kinds):
            raise CardRefused(f"{place}.skipped_in_speech is not a list of {', '.join(SPEECH_KINDS)}")
        found["skipped_in_speech"] = frozenset(kinds)
    return found
