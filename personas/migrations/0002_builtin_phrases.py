"""Installs the built-in banned list as an ordinary global list: operators edit it like any other."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

BANNED = (
    "*winks*",
    "*winks*.",
    "*smirks*",
    "*giggles*",
    "*purrs*",
    "*blushes*",
    ":)",
    ";)",
    ":D",
    ":(",
    ":P",
    "Oh honey",
    "Oh, honey",
    "Oh honey...",
    "Well honey",
    "Well honey,",
    "Well, well",
    "Well well",
    "Well, well, well",
    "Well, well!",
    "what's really on your mind?",
    "Now let's talk about",
    "~",
    " - ",
)


def install(apps: Apps, _editor: BaseDatabaseSchemaEditor) -> None:
    phrase_list = apps.get_model("personas", "PhraseList").objects.create(
        name="Built-in bans",
        note="What small talk models say far too often. CHAT_LOGIT_BIAS_FILE, where set, takes this list's place.",
        is_global=True,
        builtin=True,
    )
    Phrase = apps.get_model("personas", "Phrase")
    Phrase.objects.bulk_create(
        Phrase(phrase_list=phrase_list, text=text, key=f"~{text.casefold()}", bias=-100.0) for text in BANNED
    )
    apps.get_model("personas", "CatalogueVersion").objects.create(pk=1, number=1)


class Migration(migrations.Migration):
    dependencies = (("personas", "0001_initial"),)
    operations = (migrations.RunPython(install, migrations.RunPython.noop),)
