"""Errors as a person would tell them: what happened, where, and what to do."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from yapclient import (
    Backoff,
    BadAddress,
    ConnectionLost,
    ConnectionRefused,
    NoServer,
    ReplyTimeout,
    RequestRefused,
    TurnFailed,
    Unreadable,
    YapError,
)

PATIENCE = Backoff(attempts=3)
FAILED, USAGE, NO_CONNECTION, STOPPED = 1, 2, 3, 130

_ADVICE = {
    "authentication_failed": "give the server's key with --api-key or in TEXT_API_KEY; `python manage.py createkey` on "
    "the server makes one.",
    "key_revoked": "ask the operator for another key.",
    "server_at_capacity": "try again in a moment, end another session, or raise MAX_CONCURRENT_CONNECTIONS there.",
    "server_not_ready": "the models are still loading; try again shortly (/readyz says when).",
    "server_draining": "the server is going down, perhaps to come back; try again shortly.",
    "token_budget_exhausted": "this key has used up its tokens for the day; wait, or ask the operator for more.",
    "unknown_persona": "name a persona that the server keeps, or one in the persona file (--personas).",
    "missing_chat_prompt": "the server knows nobody of this gender and personality; name another, or use --persona.",
    "invalid_gender": "--gender takes female or male.",
    "invalid_personality": "--personality takes one short word, letters only.",
    "chat_not_deployed": "this server runs no chat model; ask one that does.",
    "generation_timeout": "the model took too long; try again, or raise GEN_TIMEOUT_S on the server.",
    "engine_unavailable": "the model's engine is down; the server builds another, so try again in a minute.",
    "internal_error": "the server's log has the details, under the reference above.",
}


def advice(error: YapError) -> str | None:
    """What to do about it, where there is something to do."""
    if isinstance(error, BadAddress):
        return "--server takes 127.0.0.1:8000, https://host or ws://host/ws."
    if isinstance(error, NoServer):
        if "HTTP" in error.why:
            return "is the path right? It is /ws unless a proxy moved it. --server takes the full address."
        return "start the server (bash scripts/main.sh), or say where it is with --server or SERVER_WS_URL."
    if isinstance(error, ReplyTimeout):
        return "look at the server's log, or allow it more time with --timeout."
    if error.code in _ADVICE:
        return _ADVICE[error.code]
    if error.code.endswith("_out_of_range"):
        return f"change --{error.code.removesuffix('_out_of_range').replace('_', '-')}."
    retry_in = getattr(error, "retry_in", None)
    if retry_in is not None:
        return f"wait {retry_in:g} s and try again."
    if isinstance(error, ConnectionLost):
        return "see the server's log for why; a new connection may work at once."
    return None


def headline(error: YapError) -> str:
    """What happened, in one line."""
    if isinstance(error, ConnectionRefused):
        told = error.message
        active, most = error.capacity.get("active"), error.capacity.get("max")
        if active is not None and most is not None:
            told = f"{active} of {most} places are taken"
        why = error.code + (f", {told}" if told else "")
        closed = f" (closed with {error.close_code})" if error.close_code else ""
        return f"{error.server} refused the connection: {why}{closed}"
    if isinstance(error, TurnFailed):
        return f"the turn failed: {error}"
    if isinstance(error, RequestRefused):
        return f"the server did not take the message: {error}"
    text = str(error)
    return text[:1].lower() + text[1:] if text.startswith("No ") else text


def explain(error: YapError) -> str:
    """Headline and, below it, what to do."""
    hint = advice(error)
    return headline(error) + (f"\n  What to do: {hint}" if hint else "")


def complain(error: YapError) -> int:
    """Tell stderr; returns the exit status."""
    print(explain(error), file=sys.stderr, flush=True)
    return exit_status(error)


def exit_status(error: YapError) -> int:
    """The exit status that stands for it."""
    if isinstance(error, (BadAddress, Unreadable)):
        return USAGE
    return NO_CONNECTION if isinstance(error, (NoServer, ConnectionRefused)) else FAILED


def waiting(error: YapError, seconds: float) -> None:
    """For ``on_wait``: say why there is a wait."""
    print(f"{headline(error)}; trying again in {seconds:.1f} s", file=sys.stderr, flush=True)


def run(main: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """Run a client to its exit status; what goes wrong is told, never traced."""
    try:
        status = asyncio.run(main())
        sys.stdout.flush()
    except YapError as error:
        status = complain(error)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        status = STOPPED
    except BrokenPipeError:
        # The reader of our output has left (`| head`): nobody to tell. Python would flush stdout once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    raise SystemExit(status)
