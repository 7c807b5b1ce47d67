"""The slash commands."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from console import failures
from yapclient import Persona, RequestRefused, YapError

from terminal.reply import Note
from terminal.talk import Talk

HELP = """\
Type and press Enter to speak. Typing while a reply comes holds the rest of it back; Enter interrupts it,
Esc (or an emptied line) lets it go on. Ctrl+C stops a reply, twice leaves; so does Ctrl+D.
  /persona NAME  talk with someone else; the history stays   /personas  who there is
  /history       what was said                               /reset     forget it
  /screen TEXT   tell what is on your screen                 /stats     times and tokens
  /help          this                                        /quit      leave"""


async def obey(talk: Talk, line: str) -> None:
    """Do what a line that starts with a slash says."""
    name, _, rest = line[1:].partition(" ")
    name, rest = name.lower(), rest.strip()
    if name == "help":
        talk.screen.note(HELP)
    elif name == "personas" or (name == "persona" and not rest):
        await beside(talk, list_personas(talk))
    elif name == "persona":
        await beside(talk, change_persona(talk, rest))
    elif name == "history":
        talk.screen.note(talk.dialogue.history or "Nothing was said yet.")
    elif name == "reset":
        talk.dialogue.forget()
        talk.screen.note("Forgotten; the next message begins anew.")
    elif name == "stats":
        talk.screen.note(talk.speaker.statistics.text())
    elif name == "screen" and rest:
        talk.speaker.say("", screen_text=rest)
    elif name == "screen":
        talk.screen.note("Say what is on the screen: /screen a weather page, sunny, 24 degrees")
    elif name in ("quit", "exit", "q"):
        talk.leaving = True
    else:
        talk.screen.note(f"There is no /{name}; /help lists what there is.")


async def beside(talk: Talk, work: Coroutine[Any, Any, None]) -> None:
    """What asks the server: beside the conversation, but in a pipe before the next line."""
    task = talk.spawn(work)
    if not talk.screen.by_key:
        await task


async def list_personas(talk: Talk) -> None:
    """Who is in the file, and who is kept on the server."""
    file = talk.given.personas
    lines = [f"In {file.path}:", *(f"  {slug}: {persona}" for slug, persona in file.personas.items())]
    await talk.fetch_stored()
    if talk.stored:
        lines += [f"On {talk.given.server}:", *(f"  {persona.slug}: {persona}" for persona in talk.stored)]
    else:
        lines.append(talk.stored_error or f"{talk.given.server} keeps none.")
    talk.post(Note("\n".join(lines)))


async def change_persona(talk: Talk, name: str) -> None:
    """Swap to someone of the file, else of the server."""
    persona = find(talk, name)
    if persona is None:
        await talk.fetch_stored()
        persona = find(talk, name)
    if persona is None:
        talk.post(Note(f"There is nobody called {name}; /personas shows who there is."))
        return
    try:
        ack = await talk.dialogue.become(persona)
    except RequestRefused as error:
        wait = f" It takes the next one in {error.retry_in:g} s." if error.retry_in is not None else ""
        talk.post(Note(f"The server kept {talk.dialogue.persona}: {error}.{wait}"))
    except YapError as error:
        talk.post(Note(failures.explain(error)))
    else:
        talk.post(Note(f"{persona} is here already." if ack and ack.code == 204 else f"Now talking with {persona}."))


def find(talk: Talk, name: str) -> Persona | None:
    """Someone by slug or name: of the file, else of the server."""
    wanted = name.casefold()
    stored = (each for each in talk.stored if wanted in ((each.slug or "").casefold(), each.name.casefold()))
    return talk.given.personas.find(name) or next(stored, None)
