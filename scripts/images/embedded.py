"""Print shell commands that make a mixed image serve its embedded models; the entry point runs them.

    python scripts/images/embedded.py [MODELS.JSON]

Exit status 1 with one line on stderr where an engine is asked for that is not inside.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class NotEmbedded(Exception):
    """The image cannot serve what is asked; the message is one line."""


def variables(record: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that name the embedded models.

    Args:
        record: the content of `models.json`.
        environ: the container's variables; `DEPLOY_MODELS` may be a part of what is embedded.

    Raises:
        NotEmbedded: an engine without a model is asked for, or a model is named at run time.
    """
    inside = "both" if len(record) == 2 else next(iter(record))
    deploy = (environ.get("DEPLOY_MODELS") or inside).strip().lower()
    wanted = ("chat", "tool") if deploy == "both" else (deploy,)
    missing = [role for role in wanted if role not in record]
    if missing:
        raise NotEmbedded(
            f"DEPLOY_MODELS={deploy}: no {' and no '.join(missing)} model is embedded in this image; rebuild it, "
            f"or set DEPLOY_MODELS={inside}"
        )
    found = {"DEPLOY_MODELS": deploy}
    for role in wanted:
        named = [name for name in (f"{role.upper()}_MODEL", f"AWQ_{role.upper()}_MODEL") if environ.get(name)]
        if named:
            raise NotEmbedded(f"{named[0]} is set, and this image serves its embedded models; rebuild it with another")
        awq = record[role]["quantization"] == "awq"
        found[f"{'AWQ_' if awq else ''}{role.upper()}_MODEL"] = record[role]["folder"]
        if awq:
            found[f"{role.upper()}_QUANTIZATION"] = "awq"
    return found


def main() -> int:
    """Command line; returns the exit status."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "/models/models.json")
    try:
        for name, value in variables(json.loads(path.read_text()), os.environ).items():
            print(f"export {name}={shlex.quote(value)}")
    except NotEmbedded as error:
        print(f"yap: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
