"""Swaps the persona in mid-session: is each swap acknowledged, and does the new one answer with the history intact?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from console import failures, options, output
from console.patience import ask, patiently
from yapclient import Ack, Connection, Persona, Turn, YapError, connect

OPENING = "Hello! My name is Mara and I live in a lighthouse."
QUESTIONS = (
    "Who are you, and what do you like?",
    "What would you do on a rainy day?",
    "Tell me one thing about the sea.",
    "What is my name?",
)


@dataclass
class Record:
    """The server's own numbers, to tell whether a prompt still holds what was said."""

    said: int = 0  # tokens of all replies so far
    prompts: dict[int, tuple[int, int]] = field(default_factory=dict)  # persona → its last prompt, and `said` then

    def holds(self, who: int, turn: Turn) -> bool | None:
        """Whether the turn's prompt holds all replies before it; None where the server gives no counts."""
        prompt, reply = turn.usage.get("prompt_tokens"), turn.usage.get("completion_tokens")
        if not isinstance(prompt, int) or not isinstance(reply, int):
            return None
        # The same persona's earlier prompt gives the tighter bound: it grew by all that was said in between.
        before, said_then = self.prompts.get(who, (0, 0))
        held = prompt > before + self.said - said_then
        self.prompts[who] = (prompt, self.said)
        self.said += reply
        return held


def acknowledged(ack: Ack, persona: Persona) -> bool:
    """Whether the ack says updated, and names the persona where it names one."""
    return ack.code in (None, 200) and names(ack, persona)


def names(ack: Ack, persona: Persona) -> bool:
    """Whether the ack names this persona, as far as it names one."""
    named = [(ack.gender, persona.gender), (ack.personality, persona.personality)]
    return all(not told or not meant or told == meant for told, meant in named)


async def switch(
    yap: Connection, persona: Persona, number: int, who: int, record: Record, options_: options.Options
) -> bool:
    """One swap and one turn with the new persona; prints what was checked."""
    ack, waits = await patiently(lambda: yap.chat_prompt(persona))
    waited = f", after waiting {waits} time{'s' if waits > 1 else ''} for the update limit" if waits else ""
    said = f"{ack.code or ''} {ack.message}".strip() or "ok"
    well = output.checked(acknowledged(ack, persona), f"switch {number} to {persona}: {said}{waited}")
    turn = await ask(yap, QUESTIONS[(number - 1) % len(QUESTIONS)], sampling=options_.sampling)
    print(f"     {persona.name or 'Reply'}: {' '.join(turn.reply.split())}")
    return verdict(turn, persona, who, record) and well


def verdict(turn: Turn, persona: Persona, who: int, record: Record) -> bool:
    """Whether the turn was answered, by the persona that was asked, with the history intact."""
    ack = turn.ack
    if ack is not None and not names(ack, persona):
        well = output.checked(False, f"the turn was acknowledged as {ack.gender}, {ack.personality} instead")
    elif not turn.reply.strip():
        well = output.checked(False, "the turn ended without an answer")
    else:
        well = output.checked(True, f"answered in {output.ms(turn.timing.ms(turn.timing.done))}")
    held = record.holds(who, turn)
    if held is None:
        print("     (the server reports no token counts, so the history cannot be verified)")
        return well
    prompt = turn.usage["prompt_tokens"]
    return output.checked(held, f"history intact: a prompt of {prompt} tokens holds what was said") and well


async def main() -> int:
    parser = options.parser("Swaps the persona in mid-session and checks that the history stays.")
    parser.add_argument(
        "--switches", type=options.at_least(1), default=4, metavar="N", help="how many; now %(default)s"
    )
    parser.add_argument(
        "--delay", type=options.at_least(0, float), default=0.0, metavar="SECONDS", help="pause before each"
    )
    args = parser.parse_args()
    given = options.read(args)
    styles = {given.persona.personality, None}
    cast = [given.persona]
    for persona in given.personas.personas.values():
        if persona.personality not in styles:
            cast.append(persona)
            styles.add(persona.personality)
    if len(cast) < 2:
        raise YapError(f"{given.personas.path} holds nobody to switch to; it needs two personas that differ")
    cast = cast[:2]  # to and fro: each comes back, so that the history can be compared
    record = Record()
    async with connect(given.server, timeout=given.timeout, backoff=failures.PATIENCE, on_wait=failures.waiting) as yap:
        print(f"{args.switches} switches, beginning with {cast[0]} at {given.server}", flush=True)
        turn = await ask(yap, OPENING, persona=cast[0], sampling=given.sampling)
        print(f"     {cast[0].name or 'Reply'}: {' '.join(turn.reply.split())}")
        well = verdict(turn, cast[0], 0, record)
        for number in range(1, int(args.switches) + 1):
            await asyncio.sleep(args.delay)
            who = number % len(cast)
            well = await switch(yap, cast[who], number, who, record, given) and well
    print("All switches went well." if well else "Something is amiss, see above.")
    return 0 if well else failures.FAILED


if __name__ == "__main__":
    failures.run(main)
