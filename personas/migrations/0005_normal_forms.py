"""Rows in the forms that the code compares: line ends as ``\\n``, prompts of cards with their macros, phrase keys."""

import contextlib
import re

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import F

from personas.card_document import MAX_FIELD_CHARS, MAX_NAME_CHARS
from personas.card_prompt import PROMPT_FIELDS, SYSTEM_PROMPT, PromptTooLong, compose, unix_lines
from personas.phrase_rules import phrase_key

# As the import of cards composed a prompt before this migration, with {{char}} replaced.
_ORIGINAL = re.compile(r"\{\{\s*original\s*\}\}", re.IGNORECASE)
_HIDDEN = re.compile(r"\{\{\s*(?://|comment:|hidden_key:)[^{}]*\}\}", re.IGNORECASE)
_MACRO = re.compile(r"\{\{\s*(?P<curly>char|user)\s*\}\}|<(?P<angle>bot|user)>", re.IGNORECASE)
_START = re.compile(r"^[ \t]*<START>[ \t]*$", re.IGNORECASE | re.MULTILINE)
_BATCH = 2000


def _composed_before(data: dict, max_chars: int) -> str | None:
    """The prompt as imported before; None where it would be longer than a stored prompt can be."""
    character = str(data.get("nickname") or data["name"])
    macros = sum(1 for key in PROMPT_FIELDS for _ in _MACRO.finditer(data[key]))
    if sum(len(data[key]) for key in PROMPT_FIELDS) + macros * len(character) > 2 * max_chars:
        return None
    examples = _START.sub("", data["mes_example"]).strip()
    parts = (
        _ORIGINAL.sub(SYSTEM_PROMPT, data["system_prompt"].strip()) or SYSTEM_PROMPT,
        data["description"],
        f"Personality: {data['personality']}" if data["personality"].strip() else "",
        f"Scenario: {data['scenario']}" if data["scenario"].strip() else "",
        f"Example dialogue:\n{examples}" if examples else "",
        _ORIGINAL.sub("", data["post_history_instructions"]),
    )

    def said(found: re.Match[str]) -> str:
        return "{{user}}" if (found["curly"] or found["angle"]).lower() == "user" else character

    texts = (_MACRO.sub(said, _HIDDEN.sub("", part)).strip() for part in parts)
    return "\n\n".join(text for text in texts if text)


def personas(apps: Apps, _editor: BaseDatabaseSchemaEditor) -> None:
    for persona in apps.get_model("personas", "Persona").objects.iterator(_BATCH):
        before = (persona.chat_prompt, persona.tool_prompt, persona.nickname)
        persona.chat_prompt = unix_lines(persona.chat_prompt).strip() or persona.chat_prompt
        persona.tool_prompt = unix_lines(persona.tool_prompt).strip()
        data = persona.card.get("data") if isinstance(persona.card, dict) else None
        if isinstance(data, dict) and all(isinstance(data.get(key), str) for key in ("name", *PROMPT_FIELDS)):
            composed = _composed_before(data, MAX_FIELD_CHARS)
            if composed is not None and unix_lines(composed) == persona.chat_prompt:
                with contextlib.suppress(PromptTooLong):
                    persona.chat_prompt = compose(data, MAX_FIELD_CHARS)
                nickname = data.get("nickname")
                if isinstance(nickname, str) and len(nickname) <= MAX_NAME_CHARS:
                    persona.nickname = " ".join(nickname.split())
        if (persona.chat_prompt, persona.tool_prompt, persona.nickname) != before:
            persona.version += 1
            persona.save(update_fields=["chat_prompt", "tool_prompt", "nickname", "version"])


def phrase_lists(apps: Apps, _editor: BaseDatabaseSchemaEditor) -> None:
    """Notes with ``\\n``; new phrase keys. Of phrases that have become equal, the one with the lowest bias stays."""
    for phrase_list in apps.get_model("personas", "PhraseList").objects.filter(note__contains="\r"):
        phrase_list.note = unix_lines(phrase_list.note)
        phrase_list.save(update_fields=["note"])
    Phrase = apps.get_model("personas", "Phrase")
    kept: set[tuple[int, str]] = set()
    changed, dropped = [], []
    for phrase in Phrase.objects.order_by("phrase_list_id", "bias", "pk").iterator(_BATCH):
        key = phrase_key(phrase.text, phrase.case_sensitive)
        if (phrase.phrase_list_id, key) in kept:
            dropped.append(phrase.pk)
            continue
        kept.add((phrase.phrase_list_id, key))
        if key != phrase.key:
            phrase.key = key
            changed.append(phrase)
    for start in range(0, len(dropped), _BATCH):
        Phrase.objects.filter(pk__in=dropped[start : start + _BATCH]).delete()
    # Two steps: a new key can be the old key of another row.
    new_keys = {phrase.pk: phrase.key for phrase in changed}
    for phrase in changed:
        phrase.key = f"!{phrase.pk}"
    Phrase.objects.bulk_update(changed, ["key"], batch_size=500)
    for phrase in changed:
        phrase.key = new_keys[phrase.pk]
    Phrase.objects.bulk_update(changed, ["key"], batch_size=500)


def announce(apps: Apps, _editor: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("personas", "CatalogueVersion").objects.filter(pk=1).update(number=F("number") + 1)


class Migration(migrations.Migration):
    dependencies = (("personas", "0004_portrait_nickname_options"),)
    operations = (
        migrations.RunPython(personas, migrations.RunPython.noop),
        migrations.RunPython(phrase_lists, migrations.RunPython.noop),
        migrations.RunPython(announce, migrations.RunPython.noop),
    )
