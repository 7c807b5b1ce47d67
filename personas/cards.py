"""Character cards V2 and V3, as JSON and inside PNG files: to what a persona needs, and back.

A card's parts become one chat prompt, in this order: system prompt (or ours), description, personality, scenario,
example dialogue, post-history instructions. ``creator_notes``, greetings, the lorebook and unknown ``extensions`` are
kept for export and never prompt the model. What a card has no field for travels in ``extensions.yap``.
"""

from __future__ import annotations

import base64
import binascii
import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from personas import card_json, png

Spec = Literal["v2", "v3"]
SPECS: dict[Spec, tuple[str, str]] = {"v2": ("chara_card_v2", "2.0"), "v3": ("chara_card_v3", "3.0")}
SYSTEM_PROMPT = "You are {{char}}, talking with {{user}}. Stay in character."  # what {{original}} stands for
MAX_NAME_CHARS = 100
MAX_FIELD_CHARS = 50_000
EXTENSION = "yap"

_V1 = ("name", "description", "personality", "scenario", "first_mes", "mes_example")
_PROMPT = ("system_prompt", "description", "personality", "scenario", "mes_example", "post_history_instructions")
_TEXTS = (*_V1, "creator_notes", "system_prompt", "post_history_instructions", "creator", "character_version")
_REQUIRED: dict[str, Any] = dict.fromkeys(_TEXTS, "") | {
    "alternate_greetings": [],
    "group_only_greetings": [],
    "tags": [],
    "extensions": {},
}
_KINDS: dict[type, str] = {str: "text", list: "a list", dict: "an object"}
_ORIGINAL = re.compile(r"\{\{\s*original\s*\}\}", re.IGNORECASE)
_HIDDEN = re.compile(r"\{\{\s*(?://|comment:|hidden_key:)[^{}]*\}\}", re.IGNORECASE)
_MACRO = re.compile(r"\{\{\s*(?P<curly>char|user)\s*\}\}|<(?P<angle>bot|user)>", re.IGNORECASE)
_START = re.compile(r"^[ \t]*<START>[ \t]*$", re.IGNORECASE | re.MULTILINE)


class CardRefused(ValueError):
    """A file that is no usable card; the message is the reason, for the operator who sent it."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a card says of a persona. ``document`` is the card itself, filled up to the specification, for export.

    ``slug``, ``gender`` and ``personality`` are None where the card, not written by Yap, has no word for them.
    """

    name: str
    chat_prompt: str
    document: dict[str, Any]
    slug: str | None = None
    gender: str | None = None
    personality: str | None = None
    tool_prompt: str = ""
    sampling: Mapping[str, float] = field(default_factory=dict)
    output_style: str | None = None


def read(data: bytes) -> Card:
    """The card in a JSON or PNG file (``ccv3`` wins over ``chara``). Raises :class:`CardRefused`."""
    try:
        return _card(card_json.load(_embedded(data) if data.startswith(png.SIGNATURE) else data))
    except CardRefused:
        raise
    except ValueError as error:
        raise CardRefused(str(error)) from None


def document(card: Card, spec: Spec = "v3") -> dict[str, Any]:
    """The whole card by its specification, ready for JSON. ``card.document`` may be empty: a persona born here."""
    whole = copy.deepcopy(card.document)
    data = _filled(whole.get("data", {}))
    data["name"] = card.name
    if compose(data) != card.chat_prompt:
        # Edited since, or born here: a card's system prompt stands alone, so the prompt comes back as it is.
        data.update(dict.fromkeys(_PROMPT, ""), system_prompt=card.chat_prompt)
    own = {
        "slug": card.slug,
        "gender": card.gender,
        "personality": card.personality,
        "tool_prompt": card.tool_prompt,
        "sampling": dict(card.sampling),
        "output_style": card.output_style,
    }
    if said := {key: value for key, value in own.items() if value}:
        data["extensions"][EXTENSION] = said
    name, version = SPECS[spec]
    return {**whole, "spec": name, "spec_version": version, "data": data}


def to_json(card: Card, spec: Spec = "v3") -> bytes:
    """The card as a JSON file."""
    return json.dumps(document(card, spec), ensure_ascii=False, indent=2).encode()


def to_png(card: Card) -> bytes:
    """The card in a plain picture, in both specifications, for readers old and new."""
    cards = {"chara": document(card, "v2"), "ccv3": document(card, "v3")}
    texts = {
        keyword: json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()
        for keyword, whole in cards.items()
    }
    return png.write_texts({keyword: base64.b64encode(text) for keyword, text in texts.items()})


def compose(data: Mapping[str, Any]) -> str:
    """The chat prompt of a card's ``data``: ``{{char}}`` replaced, ``{{user}}`` kept for whoever will be talking."""
    system = _ORIGINAL.sub(SYSTEM_PROMPT, data["system_prompt"].strip()) or SYSTEM_PROMPT
    examples = _START.sub("", data["mes_example"]).strip()
    parts = (
        system,
        data["description"],
        f"Personality: {data['personality']}" if data["personality"].strip() else "",
        f"Scenario: {data['scenario']}" if data["scenario"].strip() else "",
        f"Example dialogue:\n{examples}" if examples else "",
        _ORIGINAL.sub("", data["post_history_instructions"]),
    )
    character = str(data.get("nickname") or data["name"])

    def said(found: re.Match[str]) -> str:
        return "{{user}}" if (found["curly"] or found["angle"]).lower() == "user" else character

    texts = (_MACRO.sub(said, _HIDDEN.sub("", part)).strip() for part in parts)
    return "\n\n".join(text for text in texts if text)


def _embedded(data: bytes) -> bytes:
    texts = png.read_texts(data, ("ccv3", "chara"))
    if not texts:
        raise CardRefused("the picture carries no character card")
    text = texts.get("ccv3", texts.get("chara", b""))
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise CardRefused("the picture's card is not base64") from None


def _card(whole: dict[str, Any]) -> Card:
    spec = whole.pop("spec", None)
    whole.pop("spec_version", None)
    if spec is None and "data" not in whole and "name" in whole:
        whole = {"data": whole}  # V1: the fields themselves
    elif spec not in {name for name, _ in SPECS.values()}:
        raise CardRefused("not a character card V2 or V3 (spec is missing or unknown)")
    if not isinstance(whole.get("data"), dict):
        raise CardRefused("the card has no data")
    data = _filled(whole["data"])
    name = data["name"] = " ".join(data["name"].split())
    if not name or len(name) > MAX_NAME_CHARS:
        raise CardRefused(f"the card's name is {'too long' if name else 'missing'}")
    own = data["extensions"].pop(EXTENSION, {})
    if not isinstance(own, dict):
        raise CardRefused(f"extensions.{EXTENSION} is not an object")
    for key in ("slug", "gender", "personality", "tool_prompt", "output_style"):
        if not isinstance(own.get(key, ""), str):
            raise CardRefused(f"extensions.{EXTENSION}.{key} is not text")
    sampling = own.get("sampling", {})
    if not isinstance(sampling, dict) or not all(type(value) in (int, float) for value in sampling.values()):
        raise CardRefused(f"extensions.{EXTENSION}.sampling is not an object of numbers")
    rest = {key: value for key, value in whole.items() if key not in (*_V1, "data")}
    return Card(
        name=name,
        chat_prompt=compose(data),
        document={**rest, "data": data},
        slug=own.get("slug"),
        gender=own.get("gender"),
        personality=own.get("personality"),
        tool_prompt=own.get("tool_prompt", ""),
        sampling=sampling,
        output_style=own.get("output_style"),
    )


def _filled(given: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with every field that the specifications require, of the type they require."""
    data = copy.deepcopy(_REQUIRED) | {key: value for key, value in given.items() if value is not None}
    for key, empty in (_REQUIRED | {"nickname": ""}).items():
        value = data.get(key, empty)
        if not isinstance(value, type(empty)):
            raise CardRefused(f"the card's {key} is not {_KINDS[type(empty)]}")
        if key in (*_PROMPT, "nickname") and len(value) > MAX_FIELD_CHARS:
            raise CardRefused(f"the card's {key} is longer than {MAX_FIELD_CHARS} characters")
    return data
