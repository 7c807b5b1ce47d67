"""Bad settings as one line for an operator."""

from __future__ import annotations

from pydantic import ValidationError

from yapserver.environment_files import SECRETS


def explain(error: ValidationError) -> str:
    """One line for an operator: the variable, its value, and what is allowed. Secrets are not repeated."""
    first = error.errors()[0]
    if not first["loc"]:
        return str(first["msg"]).removeprefix("Value error, ")
    name = str(first["loc"][0])
    shown = "…" if name in SECRETS else repr(first["input"])
    if first["type"].startswith("bool"):
        return f"{name}={shown}: allowed are 1/0, true/false, yes/no"
    return f"{name}={shown}: {first['msg'][0].lower()}{first['msg'][1:]}"
