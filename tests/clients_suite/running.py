"""Runs a client as its user does: as a separate process."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

KEY = {"TEXT_API_KEY": "right-key"}  # the key of the scripted server
CLIENTS = Path(__file__).resolve().parent.parent / "clients"
_OURS = ("TEXT_API_KEY", "SERVER_WS_URL", "GENDER", "PERSONALITY", "PERSONA_STYLE", "RECV_TIMEOUT_SEC")


@dataclass(frozen=True)
class Outcome:
    """Exit status and output of a client."""

    status: int
    out: str
    err: str


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without the clients' variables, plus the given ones."""
    return {name: value for name, value in os.environ.items() if name not in _OURS} | dict(variables)


def command(name: str, *arguments: str) -> list[str]:
    """Return the command line that runs a client; warnings are errors."""
    return [sys.executable, "-W", "error", str(CLIENTS / f"{name}.py"), *arguments]


async def run_client(
    name: str, *arguments: str, variables: Mapping[str, str] = KEY, typed: str = "", limit_s: float = 60
) -> Outcome:
    """Run a client to its end through pipes, in another folder than its own."""
    process = await asyncio.create_subprocess_exec(
        *command(name, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(variables),
        cwd=tempfile.gettempdir(),
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(typed.encode()), limit_s)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Outcome(process.returncode, out.decode(), err.decode())
