"""Print shell commands that export the variables of `.env`; the scripts run them by `eval`. Standard library only.

    eval "$(python3 scripts/export_env.py)"

Variables that the environment has already are left out. Exit status 1 with one line on stderr where the file is bad.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from yapserver.environment_files import EnvironmentFileError, missing_from, read_secrets  # noqa: E402


def main() -> int:
    """Command line; returns the exit status."""
    try:
        variables = missing_from(os.environ, ROOT)
        read_secrets({**os.environ, **variables})  # a secret file that is missing is refused here, before any work
    except EnvironmentFileError as error:
        print(f"yap: bad setting: {error}", file=sys.stderr)
        return 1
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
