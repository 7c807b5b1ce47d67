"""The tool flow: a turn that should raise a tool call, then the followup with a description of the screen."""

from __future__ import annotations

import sys

from console import failures, options, output
from console.patience import ask, patiently
from yapclient import Turn, connect

MESSAGE = "Can you look at my screen and tell me what the weather will be?"
ANALYSIS = "A weather page for Lisbon: sunny, 24 degrees, a light wind from the west, no rain until Thursday."


def show(name: str, turn: Turn) -> None:
    """Print a reply and its times."""
    timing = turn.timing
    print(f"{name}: {turn.reply.strip() or '(nothing)'}")
    print(f"     first token {output.ms(timing.ms(timing.first_token))}, total {output.ms(timing.ms(timing.done))}")


async def main() -> int:
    parser = options.parser("The tool flow: toolcall yes, then a followup with the analysis of the screen.")
    parser.add_argument("--message", default=MESSAGE, metavar="TEXT", help="message that should raise the tool call")
    parser.add_argument("--analysis", default=ANALYSIS, metavar="TEXT", help="description of the screen to send")
    parser.add_argument("--allow-no", action="store_true", help="send the followup even after a no")
    args = parser.parse_args()
    given = options.read(args)
    name = given.persona.name or "Reply"
    async with connect(given.server, timeout=given.timeout, backoff=failures.PATIENCE, on_wait=failures.waiting) as yap:
        print(f"You: {args.message}", flush=True)
        first = await ask(yap, args.message, persona=given.persona, sampling=given.sampling)
        tool = first.tool
        if tool is None:
            what = "no tool decision came; does this server run a tool model (DEPLOY_MODELS)?"
        else:
            calls = f" ({', '.join(tool.names)})" if tool.names else ""
            after = output.ms(first.timing.ms(first.timing.toolcall))
            what = f"toolcall {'yes' if tool.yes else 'no'}{calls} after {after}"
        output.checked(bool(tool and tool.yes) or args.allow_no, what)
        show(name, first)
        if not (tool and tool.yes) and not args.allow_no:
            print(
                "The decision was no, so the client sends no followup.\n"
                "  What to do: ask more plainly with --message, or pass --allow-no.",
                file=sys.stderr,
            )
            return failures.FAILED
        print(f"Screen: {args.analysis}", flush=True)
        second, _ = await patiently(lambda: yap.followup(args.analysis).finish())
        show(name, second)
        well = output.checked(bool(second.reply.strip()), "the followup was answered")
    return 0 if well else failures.FAILED


if __name__ == "__main__":
    failures.run(main)
