"""One turn: checks that the server answers, and prints the times."""

from __future__ import annotations

from typing import Any

from console import failures, options, output
from yapclient import RequestRefused, Turn, YapError, connect

MESSAGE = "Hello! What would you like to talk about today?"


def ack_line(turn: Turn) -> str:
    """Format the server's acknowledgement in one line; absent fields are omitted."""
    fields = turn.ack.raw if turn.ack else {}
    shown = " ".join(
        f"{key}={fields[key]}" for key in ("session_id", "gender", "personality", "turn") if fields.get(key) is not None
    )
    now = f" now={fields['now']!r}" if fields.get("now") else ""
    return f"ACK {'ok' if turn.ack and turn.ack.ok else 'missing'} {shown}{now}".rstrip()


def metrics(turn: Turn | None, error: YapError | None) -> dict[str, Any]:
    """Build the metrics line.

    Returns:
        Times in milliseconds since the message was sent; None for an event that did not happen.
    """
    timing = turn.timing if turn else None
    said_something = turn is not None and (turn.text != "" or turn.tool is not None)
    return {
        "type": "metrics",
        "ok": error is None and said_something and turn is not None and not turn.cancelled,
        "ttfb_ms": timing and timing.ms(timing.first_token),
        "ttfb_toolcall_ms": timing and timing.ms(timing.toolcall),
        "total_ms": timing and timing.ms(timing.done),
        "stream_ms": timing and timing.stream_ms,
        "time_to_first_3_words_ms": timing and timing.ms(timing.three_words),
        "time_to_first_complete_sentence_ms": timing and timing.ms(timing.first_sentence),
        "chunks": timing.chunks if timing else 0,
        "chars": timing.chars if timing else 0,
        **({"tool": "yes" if turn.tool.yes else "no"} if turn and turn.tool else {}),
        **({"usage": turn.usage} if turn and turn.usage else {}),
        **({"error_code": error.code} if error else {}),
    }


async def one_pass(turn: Turn, extra: dict[str, Any]) -> bool:
    """Run a turn and print its three lines; returns whether the turn succeeded."""
    error: YapError | None = None
    acked = False
    try:
        async for _ in turn:
            if turn.ack and not acked:
                print(ack_line(turn), flush=True)
                acked = True
        await turn.finish()
    except YapError as problem:
        error = problem
    if not acked and turn.sent and not isinstance(error, RequestRefused):
        print(ack_line(turn), flush=True)
    line = {**metrics(turn, error), **extra}
    output.json_line(line)
    output.json_line({"type": "final_text", "text": turn.reply, **extra})
    if error is not None:
        failures.complain(error)
    return bool(line["ok"])


async def main() -> int:
    parser = options.parser("One turn: prints the ACK line, then two JSON lines: the metrics and the reply.")
    parser.add_argument("message", nargs="*", help=f"text to send; default: {MESSAGE}")
    parser.add_argument(
        "--double-ttfb",
        action="store_true",
        help="send the message twice on one connection, without history; the second time uses the prefix cache",
    )
    args = parser.parse_args()
    given = options.read(args)
    message = " ".join(args.message) or MESSAGE
    try:
        async with connect(
            given.server, timeout=given.timeout, backoff=failures.PATIENCE, on_wait=failures.waiting
        ) as yap:
            well = True
            for number in (1, 2) if args.double_ttfb else (0,):
                turn = yap.turn(message, persona=given.persona, history="", sampling=given.sampling)
                well = await one_pass(turn, {"pass": number} if number else {}) and well
                if yap.lost:
                    break
    except YapError as error:
        output.json_line(metrics(None, error))
        output.json_line({"type": "final_text", "text": ""})
        return failures.complain(error)
    return 0 if well else failures.FAILED


if __name__ == "__main__":
    failures.run(main)
