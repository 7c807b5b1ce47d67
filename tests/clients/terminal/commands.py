"""The slash commands."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from console import failures
from yapclient import Persona, RequestRefused, YapError

from terminal.reply import Note
from terminal.talk import Talk

HELP = """\
Type a message and press Enter. Typing during a reply pauses its display; Enter interrupts the reply,
Esc (or an empty line) continues it. Ctrl+C stops a reply; Ctrl+C twice or Ctrl+D exits.
  /persona NAME  change the persona; the history stays       /personas  list the personas
  /history       show the conversation                       /reset     forget the conversation
  /screen TEXT   describe your screen                        /stats     times and tokens
  /help          show this text                              /quit      exit"""


async def obey(talk: Talk, line: str) -> None:
    """Carry out a line that starts with a slash."""
    name, _, rest = line[1:].partition(" ")
    name, rest = name.lower(), rest.strip()
    if name == "help":
        talk.screen.note(HELP)
    elif name == "personas" or (name == "persona" and not rest):
        await beside(talk, list_personas(talk))
    elif name == "persona":
        await beside(talk, change_persona(talk, rest))
    elif name == "history":
        talk.screen.note(talk.dialogue.history or "The conversation is empty.")
    elif name == "reset":
        talk.dialogue.forget()
        talk.screen.note("Forgotten; the next message starts a new conversation.")
    elif name == "stats":
        talk.screen.note(talk.speaker.statistics.text())
    elif name == "screen" and rest:
        talk.speaker.say("", screen_text=rest)
    elif name == "screen":
        talk.screen.note("Describe the screen: /screen a weather page, sunny, 24 degrees")
    elif name in ("quit", "exit", "q"):
        talk.leaving = True
    else:
        talk.screen.note(f"There is no /{name}; /help lists the commands.")


async def beside(talk: Talk, work: Coroutine[Any, Any, None]) -> None:
    """Run a command that asks the server: concurrently at a terminal, before the next line in a pipe."""
    task = talk.spawn(work)
    if not talk.screen.by_key:
        await task


async def list_personas(talk: Talk) -> None:
    """Show the personas of the file and those stored on the server."""
    file = talk.given.personas
    lines = [f"In {file.path}:", *(f"  {slug}: {persona}" for slug, persona in file.personas.items())]
    await talk.fetch_stored()
    if talk.stored:
        lines += [f"On {talk.given.server}:", *(f"  {persona.slug}: {persona}" for persona in talk.stored)]
    else:
        lines.append(talk.stored_error or f"{talk.given.server} has none.")
    talk.post(Note("\n".join(lines)))


async def change_persona(talk: Talk, name: str) -> None:
    """Change to a persona of the file, else to one stored on the server."""
    persona = find(talk, name)
    if persona is None:
        await talk.fetch_stored()
        persona = find(talk, name)
    if persona is None:
        talk.post(Note(f"There is no persona {name}; /personas lists them."))
        return
    try:
        ack = await talk.dialogue.become(persona)
    except RequestRefused as error:
        wait = f" The next change is possible in {error.retry_in:g} s." if error.retry_in is not None else ""
        talk.post(Note(f"The server kept {talk.dialogue.persona}: {error}.{wait}"))
    except YapError as error:
        talk.post(Note(failures.explain(error)))
    else:
        talk.post(Note(f"{persona} is already active." if ack and ack.code == 204 else f"Now talking with {persona}."))


def find(talk: Talk, name: str) -> Persona | None:
    """Find a persona by slug or name: in the file, else on the server; None if there is none."""
    wanted = name.casefold()
    stored = (each for each in talk.stored if wanted in ((each.slug or "").casefold(), each.name.casefold()))
    return talk.given.personas.find(name) or next(stored, None)
