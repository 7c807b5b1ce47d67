"""A conversation in the terminal: replies stream, and typing interrupts them."""

from __future__ import annotations

import sys

from console import failures, options
from terminal.commands import obey
from terminal.screen import Screen
from terminal.talk import Talk
from yapclient import Dialogue


async def main() -> int:
    parser = options.parser(
        "A conversation: replies stream, typing and Enter interrupts, Ctrl+C stops a reply (twice: exit). "
        "The client reads the persona file again after a change. In a pipe, each line of input is one turn."
    )
    given = options.read(parser.parse_args())
    screen = Screen(by_key=sys.stdin.isatty() and sys.stdout.isatty())
    dialogue = Dialogue(given.server, given.persona, given.sampling, given.timeout, failures.PATIENCE, failures.waiting)
    return await Talk(given, screen, dialogue, obey).run()


if __name__ == "__main__":
    failures.run(main)
