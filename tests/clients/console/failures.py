"""Error messages for a person: the cause, the server, and a remedy. Also the exit status of a client."""

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
    "server_at_capacity": "try again in a moment, close a session, or raise MAX_CONCURRENT_CONNECTIONS on the server.",
    "server_not_ready": "the models are loading; try again in a moment (/readyz reports the state).",
    "server_draining": "the server is stopping; try again in a moment.",
    "token_budget_exhausted": "this key has used its tokens of today; wait until midnight UTC, or ask the operator "
    "for a higher limit.",
    "unknown_persona": "name a persona stored on the server, or one in the persona file (--personas).",
    "missing_chat_prompt": "the server has no persona of this gender and personality; change them, or use --persona.",
    "invalid_gender": "--gender takes female or male.",
    "invalid_personality": "--personality takes one short word, letters only.",
    "chat_not_deployed": "this server runs no chat model; use a server that does.",
    "generation_timeout": "the model took too long; try again, or raise GEN_TIMEOUT_S on the server.",
    "engine_unavailable": "the engine has died and the server starts another one; try again in a minute.",
    "internal_error": "the server's log has the details, under the reference above.",
}


def advice(error: YapError) -> str | None:
    """Find a remedy for an error; None if there is no known one."""
    if isinstance(error, BadAddress):
        return "--server takes 127.0.0.1:8000, https://host or ws://host/ws."
    if isinstance(error, NoServer):
        if "HTTP" in error.why:
            return "check the path: the default is /ws, a proxy may use another one. --server takes the full address."
        return "start the server (bash scripts/main.sh), or name its address with --server or SERVER_WS_URL."
    if isinstance(error, ReplyTimeout):
        return "check the server's log, or raise --timeout."
    if error.code in _ADVICE:
        return _ADVICE[error.code]
    if error.code.endswith("_out_of_range"):
        return f"change --{error.code.removesuffix('_out_of_range').replace('_', '-')}."
    retry_in = getattr(error, "retry_in", None)
    if retry_in is not None:
        return f"wait {retry_in:g} s and try again."
    if isinstance(error, ConnectionLost):
        return "check the server's log for the reason; a new connection may work at once."
    return None


def headline(error: YapError) -> str:
    """Describe an error in one line."""
    if isinstance(error, ConnectionRefused):
        detail = error.message
        active, most = error.capacity.get("active"), error.capacity.get("max")
        if active is not None and most is not None:
            detail = f"{active} of {most} connection slots are in use"
        why = error.code + (f", {detail}" if detail else "")
        closed = f" (closed with {error.close_code})" if error.close_code else ""
        return f"{error.server} refused the connection: {why}{closed}"
    if isinstance(error, TurnFailed):
        return f"the turn failed: {error}"
    if isinstance(error, RequestRefused):
        return f"the server refused the message: {error}"
    text = str(error)
    return text[:1].lower() + text[1:] if text.startswith("No ") else text


def explain(error: YapError) -> str:
    """Return the headline of an error and, on a second line, its remedy if there is one."""
    hint = advice(error)
    return headline(error) + (f"\n  What to do: {hint}" if hint else "")


def complain(error: YapError) -> int:
    """Print an error and its remedy to stderr; returns the exit status."""
    print(explain(error), file=sys.stderr, flush=True)
    return exit_status(error)


def exit_status(error: YapError) -> int:
    """Map an error to the exit status of the client."""
    if isinstance(error, (BadAddress, Unreadable)):
        return USAGE
    return NO_CONNECTION if isinstance(error, (NoServer, ConnectionRefused)) else FAILED


def waiting(error: YapError, seconds: float) -> None:
    """Print why and how long a client waits; a callback for `on_wait`.

    Args:
        error: the cause of the wait.
        seconds: duration of the wait.
    """
    print(f"{headline(error)}; trying again in {seconds:.1f} s", file=sys.stderr, flush=True)


def run(main: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """Run a client and exit with its status. Expected errors become one message on stderr, without a traceback."""
    try:
        status = asyncio.run(main())
        sys.stdout.flush()
    except YapError as error:
        status = complain(error)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        status = STOPPED
    except BrokenPipeError:
        # The reader of our output has closed the pipe (`| head`). Python flushes stdout once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    raise SystemExit(status)
