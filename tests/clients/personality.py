"""Changes the persona during a session and checks the acknowledgement, the answer and the history."""

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
    """Token counts of the server, to check whether a prompt contains the earlier turns."""

    said: int = 0  # tokens of all replies so far
    prompts: dict[int, tuple[int, int]] = field(
        default_factory=dict
    )  # persona → (tokens of its last prompt, `said` then)

    def holds(self, who: int, turn: Turn) -> bool | None:
        """Check a turn's prompt against the earlier replies.

        Args:
            who: number of the persona that answered.
            turn: the finished turn.

        Returns:
            Whether the prompt contains all earlier replies; None if the server reports no counts.
        """
        prompt, reply = turn.usage.get("prompt_tokens"), turn.usage.get("completion_tokens")
        if not isinstance(prompt, int) or not isinstance(reply, int):
            return None
        # The same persona's earlier prompt gives the tighter bound: the prompt grew by all replies in between.
        before, said_then = self.prompts.get(who, (0, 0))
        held = prompt > before + self.said - said_then
        self.prompts[who] = (prompt, self.said)
        self.said += reply
        return held


def acknowledged(ack: Ack, persona: Persona) -> bool:
    """Return whether the ack reports an update and names the persona, if the ack names one."""
    return ack.code in (None, 200) and names(ack, persona)


def names(ack: Ack, persona: Persona) -> bool:
    """Return whether the ack's gender and personality, where present, are those of the persona."""
    named = [(ack.gender, persona.gender), (ack.personality, persona.personality)]
    return all(not actual or not expected or actual == expected for actual, expected in named)


async def switch(
    yap: Connection, persona: Persona, number: int, who: int, record: Record, options_: options.Options
) -> bool:
    """Change the persona, run one turn with it, and print the checks.

    Returns:
        Whether every check passed.
    """
    ack, waits = await patiently(lambda: yap.chat_prompt(persona))
    waited = f", after waiting {waits} time{'s' if waits > 1 else ''} for the update limit" if waits else ""
    said = f"{ack.code or ''} {ack.message}".strip() or "ok"
    well = output.checked(acknowledged(ack, persona), f"switch {number} to {persona}: {said}{waited}")
    turn = await ask(yap, QUESTIONS[(number - 1) % len(QUESTIONS)], sampling=options_.sampling)
    print(f"     {persona.name or 'Reply'}: {' '.join(turn.reply.split())}")
    return verdict(turn, persona, who, record) and well


def verdict(turn: Turn, persona: Persona, who: int, record: Record) -> bool:
    """Check that the turn was answered by the requested persona with the history intact."""
    ack = turn.ack
    if ack is not None and not names(ack, persona):
        well = output.checked(False, f"the turn was acknowledged as {ack.gender}, {ack.personality}")
    elif not turn.reply.strip():
        well = output.checked(False, "the turn ended without an answer")
    else:
        well = output.checked(True, f"answered in {output.ms(turn.timing.ms(turn.timing.done))}")
    held = record.holds(who, turn)
    if held is None:
        print("     (the server reports no token counts, so the history cannot be checked)")
        return well
    prompt = turn.usage["prompt_tokens"]
    return output.checked(held, f"history intact: a prompt of {prompt} tokens contains the earlier turns") and well


async def main() -> int:
    parser = options.parser("Changes the persona during a session and checks that the history stays.")
    parser.add_argument(
        "--switches", type=options.at_least(1), default=4, metavar="N", help="number of changes; default %(default)s"
    )
    parser.add_argument(
        "--delay",
        type=options.at_least(0, float),
        default=0.0,
        metavar="SECONDS",
        help="pause before each change",
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
        raise YapError(f"{given.personas.path} has no second persona; the test needs two with different personalities")
    cast = cast[:2]  # alternate, so that each persona's prompts can be compared
    record = Record()
    async with connect(given.server, timeout=given.timeout, backoff=failures.PATIENCE, on_wait=failures.waiting) as yap:
        print(f"{args.switches} switches, starting with {cast[0]} at {given.server}", flush=True)
        turn = await ask(yap, OPENING, persona=cast[0], sampling=given.sampling)
        print(f"     {cast[0].name or 'Reply'}: {' '.join(turn.reply.split())}")
        well = verdict(turn, cast[0], 0, record)
        for number in range(1, int(args.switches) + 1):
            await asyncio.sleep(args.delay)
            who = number % len(cast)
            well = await switch(yap, cast[who], number, who, record, given) and well
    print("All switches went well." if well else "A check failed, see above.")
    return 0 if well else failures.FAILED


if __name__ == "__main__":
    failures.run(main)
