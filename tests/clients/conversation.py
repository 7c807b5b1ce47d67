"""Ten turns with one persona that end in memory questions: checks that the history is kept and bounded."""

from __future__ import annotations

from dataclasses import dataclass

from console import failures, options, output
from console.patience import ask
from yapclient import Connection, Turn, connect

SCRIPT = (
    "Hello! My name is Mara, nice to meet you.",
    "I have a small brown dog called Biscuit.",
    "We live in a lighthouse by the sea.",
    "This morning we walked along the beach and found a green glass bottle.",
    "What do you think could have been inside it?",
    "On Saturday I am baking a lemon cake for my brother.",
    "Do you have a tip for a good cake?",
    "Now a few questions. What is my name?",
    "What is my dog called?",
    "What cake am I baking on Saturday?",
)
MEMORY = {7: "Mara", 8: "Biscuit", 9: "lemon"}
CONTEXT_TOKENS = 5160  # default of CHAT_MAX_LEN; no prompt is longer
SLACK_TOKENS = 8  # after a yes of the tool engine, the user's text has a short prefix for that turn
BEACH_DAY = (
    "User: We went to the beach again and counted the gulls on the rocks, and the waves were high.\n"
    "Assistant: That sounds lovely. Did Biscuit chase the gulls, or was the water too cold for that?\n"
)


@dataclass
class Memory:
    """Token counts of the server, turn by turn.

    `prompts` and `replies` hold the tokens of each turn's prompt and reply.
    """

    prompts: list[int]
    replies: list[int]

    def add(self, turn: Turn) -> None:
        """Take the counts of a finished turn; a server without counts adds nothing."""
        prompt, reply = turn.usage.get("prompt_tokens"), turn.usage.get("completion_tokens")
        if isinstance(prompt, int):
            self.prompts.append(prompt)
            self.replies.append(reply if isinstance(reply, int) else 0)

    def lost_at(self, limit: int) -> int | None:
        """Find a turn whose prompt did not contain the turn before.

        Args:
            limit: longest prompt in tokens; a prompt above half of it may have been trimmed and is not checked.

        Returns:
            The number of the turn, from 1, or None.
        """
        for index in range(1, len(self.prompts)):
            before, now = self.prompts[index - 1], self.prompts[index]
            if now + SLACK_TOKENS < before + self.replies[index - 1] and before < limit / 2:
                return index + 1
        return None


async def bounded(yap: Connection, given: options.Options, limit: int) -> bool:
    """Send far more history than fits, and check that the prompt stays within the limit.

    Args:
        limit: longest prompt in tokens.
    """
    text = BEACH_DAY * (limit * 6 // len(BEACH_DAY))
    turn = await ask(yap, "Good night!", history=text, sampling=given.sampling)
    prompt = turn.usage.get("prompt_tokens")
    return output.checked(
        isinstance(prompt, int) and prompt <= limit,
        f"history is bounded: {len(text):,} characters became a prompt of {prompt} tokens (limit {limit})",
    )


async def main() -> int:
    parser = options.parser("A scripted conversation of ten turns that ends in memory questions.")
    parser.add_argument(
        "--limit", type=options.at_least(1), default=CONTEXT_TOKENS, metavar="TOKENS",
        help="longest prompt of the server (its CHAT_MAX_LEN); default %(default)s",
    )  # fmt: skip
    parser.add_argument("--no-bound-check", action="store_true", help="skip the last check, an overlong history")
    parser.add_argument("--strict", action="store_true", help="also fail if the model forgets a fact")
    parser.add_argument("--brief", action="store_true", help="print the table without the conversation")
    args = parser.parse_args()
    given = options.read(args)
    rows: list[list[str]] = []
    memory = Memory([], [])
    recalled: list[str] = []
    async with connect(given.server, timeout=given.timeout, backoff=failures.PATIENCE, on_wait=failures.waiting) as yap:
        print(f"Ten turns with {given.persona} at {given.server}\n", flush=True)
        for index, text in enumerate(SCRIPT):
            turn = await ask(yap, text, persona=None if index else given.persona, sampling=given.sampling)
            memory.add(turn)
            if index in MEMORY and MEMORY[index].casefold() in turn.reply.casefold():
                recalled.append(MEMORY[index])
            if not args.brief:
                print(f"You: {text}\n{given.persona.name or 'Reply'}: {turn.reply.strip()}\n", flush=True)
            rows.append(_row(index, turn))
        head = ["turn", "first token", "3 words", "sentence", "total", "prompt", "cached"]
        output.table("Times since sending, token counts of the server", head, rows)
        print()
        well = True
        if len(memory.prompts) < len(SCRIPT):
            print("This server reports no token counts, so the history cannot be checked.")
        else:
            lost = memory.lost_at(int(args.limit))
            where = f"lost in turn {lost}" if lost else f"{memory.prompts[0]} → {memory.prompts[-1]} tokens"
            well = output.checked(lost is None, f"history is kept: each prompt contains the earlier turns ({where})")
            if not args.no_bound_check:
                well = await bounded(yap, given, int(args.limit)) and well
    answer = f"the model recalled {len(recalled)} of {len(MEMORY)}" + (f" ({', '.join(recalled)})" if recalled else "")
    if args.strict:
        well = output.checked(len(recalled) == len(MEMORY), answer) and well
    else:
        print(f"     {answer}; this depends on the model and is a failure only with --strict")
    return 0 if well else failures.FAILED


def _row(index: int, turn: Turn) -> list[str]:
    timing, usage = turn.timing, turn.usage
    moments = (timing.first_token, timing.three_words, timing.first_sentence, timing.done)
    counts = [str(usage.get(key, "–")) for key in ("prompt_tokens", "cached_tokens")]
    return [str(index + 1), *(output.ms(timing.ms(moment)) for moment in moments), *counts]


if __name__ == "__main__":
    failures.run(main)
