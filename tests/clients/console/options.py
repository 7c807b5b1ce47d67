"""The options that every client has."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from yapclient import Persona, PersonaFile, Server

PERSONAS = Path(__file__).resolve().parent.parent / "personas.json"
DEFAULT_SERVER = "ws://127.0.0.1:8000/ws"
DEFAULT_TIMEOUT_S = 60.0

_SAMPLING = {
    "temperature": ("0.2 to 1.2", float),
    "top_p": ("0.6 to 1.0", float),
    "top_k": ("10 to 60", int),
    "min_p": ("0 to 0.20", float),
    "repeat_penalty": ("1.0 to 1.3", float),
    "presence_penalty": ("0 to 0.15", float),
    "frequency_penalty": ("0 to 0.15", float),
}

_EPILOG = """\
environment: SERVER_WS_URL (--server), TEXT_API_KEY (--api-key), GENDER, PERSONALITY or PERSONA_STYLE,
RECV_TIMEOUT_SEC (--timeout). An option wins over its variable.

exit status: 0 success; 1 the server answered, but a check or a turn failed; 2 wrong command line;
3 no connection: no server, or refused; 130 stopped with Ctrl+C."""


@dataclass(frozen=True)
class Options:
    """Values of the shared options. `timeout` is in seconds."""

    server: Server
    sampling: dict[str, float]
    persona: Persona
    personas: PersonaFile
    timeout: float


def parser(description: str, *, server_alias: str | None = None) -> argparse.ArgumentParser:
    """Create a parser with the options that every client has.

    Args:
        description: text above the options in `--help`.
        server_alias: a second name of `--server`; None: no second name.

    Returns:
        A parser. Add more options, parse, and pass the result to :func:`read`.
    """
    made = argparse.ArgumentParser(
        description=textwrap.fill(description, 100),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = made.add_argument_group("server")
    names = ["--server", *([server_alias] if server_alias else [])]
    where.add_argument(
        *names,
        dest="server",
        metavar="URL",
        default=os.environ.get("SERVER_WS_URL") or DEFAULT_SERVER,
        help="full ws:// address, or the origin (127.0.0.1:8000, https://host) without /ws; default %(default)s",
    )
    where.add_argument("--api-key", metavar="KEY", help="API key; default: TEXT_API_KEY")
    where.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_positive,
        default=os.environ.get("RECV_TIMEOUT_SEC") or DEFAULT_TIMEOUT_S,
        help="longest wait for the next frame; default %(default)s",
    )
    who = made.add_argument_group("persona")
    who.add_argument("--persona", metavar="NAME", help="a persona of the persona file, else one stored on the server")
    who.add_argument("--gender", default=os.environ.get("GENDER"), help="female or male")
    who.add_argument(
        "--personality",
        "--style",
        "--persona-style",
        dest="personality",
        metavar="WORD",
        default=os.environ.get("PERSONALITY") or os.environ.get("PERSONA_STYLE"),
        help="one word; selects a persona of the file together with --gender, else one on the server",
    )
    who.add_argument(
        "--personas", metavar="FILE", type=Path, default=PERSONAS, help="persona file; default %(default)s"
    )
    how = made.add_argument_group("sampling (default: the server's values)")
    for key, (allowed, kind) in _SAMPLING.items():
        how.add_argument(f"--{key.replace('_', '-')}", dest=key, type=kind, metavar="X", help=f"usually {allowed}")
    return made


def read(args: argparse.Namespace) -> Options:
    """Turn parsed arguments into options.

    Raises:
        BadAddress: `--server` is not an address of a server.
        Unreadable: the persona file cannot be read.
    """
    server = Server.parse(args.server, args.api_key, fallback_key=os.environ.get("TEXT_API_KEY"))
    file = PersonaFile(args.personas)
    file.refresh()
    sampling = {key: getattr(args, key) for key in _SAMPLING if getattr(args, key) is not None}
    return Options(server, sampling, _persona(args, file), file, args.timeout)


def _persona(args: argparse.Namespace, file: PersonaFile) -> Persona:
    if args.persona:
        return file.find(args.persona) or Persona(slug=args.persona, name=args.persona)
    gender = args.gender.strip().lower() if args.gender else None
    personality = args.personality.strip().lower() if args.personality else None
    first = next(iter(file.personas.values()), Persona())
    return file.by_style(gender, personality) or Persona(
        gender or first.gender or "female", personality or first.personality or "cheerful"
    )


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def at_least(low: float, kind: type[int] | type[float] = int) -> Callable[[str], float]:
    """Create an argument type for numbers with a lower bound.

    Args:
        low: the smallest allowed value.
        kind: `int` or `float`.
    """

    def check(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not low <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is below {low:g}")
        return value

    return check
