"""The record of the last start: what scripts/restart.sh starts again. No secret is in it.

    python3 scripts/last_start.py collect {0|1}               main.sh writes what it was asked for; 1: with `awq`
    python3 scripts/last_start.py exports [both|chat|tool]    restart.sh: shell commands on stdout, remarks on stderr

A record holds the names and values of the variables that were set, but for those that `.env` sets, and the names of the
secrets that were set.
"""

from __future__ import annotations

import ast
import json
import os
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from yapserver.environment_files import SECRETS, EnvironmentFileError, missing_from  # noqa: E402

# What the scripts, the Hub's library and the engines read beside the settings of the server.
BESIDE_SETTINGS = (
    "AWQ_CALIB_DATASET", "AWQ_NSAMPLES", "AWQ_SEQLEN", "AWQ_FAIL_HARD", "HF_AWQ_PUSH", "HF_AWQ_CHAT_REPO",
    "HF_AWQ_TOOL_REPO", "HF_AWQ_BRANCH", "HF_AWQ_PRIVATE", "HF_AWQ_ALLOW_CREATE", "HF_AWQ_COMMIT_MSG_CHAT",
    "HF_AWQ_COMMIT_MSG_TOOL", "READY_TIMEOUT_S", "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
)  # fmt: skip
# The shell names the place; a record of it could only be wrong.
_LEFT_OUT = {"RUN_DIR", "LOG_FILE", "DEBUG"}
_ROLES = ("CHAT", "TOOL")


class RecordError(Exception):
    """There is no usable record, or it does not fit what is asked; the message is one line for an operator."""


def collect(environ: Mapping[str, str], awq: bool, from_file: Mapping[str, str], settings: list[str]) -> dict[str, Any]:
    """Return the record of a start.

    Args:
        environ: the variables that main.sh ends up with.
        awq: whether the start was asked for 4-bit weights.
        from_file: the variables of `.env`; what has the same value there is read from there again.
        settings: the names of the server's settings.
    """
    secret_names = {*SECRETS, *(f"{name}_FILE" for name in SECRETS)}
    kept = {
        name: environ[name]
        for name in (*settings, *BESIDE_SETTINGS)
        if environ.get(name) and name not in secret_names | _LEFT_OUT and from_file.get(name) != environ[name]
    }
    secrets = [name for name in SECRETS if environ.get(name) or environ.get(f"{name}_FILE")]
    return {
        "version": 1,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "awq": awq,
        "variables": kept,
        "secrets": secrets,
    }


def read(path: Path) -> dict[str, Any]:
    """Return the record at ``path``.

    Raises:
        RecordError: there is none, or it is not one of ours.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"no record of a start in {path}; start with scripts/main.sh") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read ({error}); start with scripts/main.sh") from None
    variables = record.get("variables") if isinstance(record, dict) else None
    good = isinstance(variables, dict) and all(
        isinstance(value, str) and str(name).isidentifier() for name, value in variables.items()
    )
    if not good or record.get("version") != 1:
        raise RecordError(f"{path} is not a record of this version; start with scripts/main.sh")
    return dict(record)


def reused(record: Mapping[str, Any], environ: Mapping[str, str], deploy: str | None) -> dict[str, str]:
    """Return the variables that a restart takes from the record; the environment wins.

    Args:
        record: see `collect`.
        environ: the variables now, those of `.env` included.
        deploy: `both`, `chat` or `tool` where the restart names it.

    Raises:
        RecordError: a secret of the last start is missing now, or an engine is asked for that has no model.
    """
    missing = [name for name in record["secrets"] if not (environ.get(name) or environ.get(f"{name}_FILE"))]
    if {"HF_TOKEN", "HUGGINGFACE_HUB_TOKEN"} - set(missing):
        missing = [name for name in missing if name not in ("HF_TOKEN", "HUGGINGFACE_HUB_TOKEN")]
    if missing:
        raise RecordError(f"not set: {', '.join(missing)}; the last start had it, and secrets are not recorded")
    taken = {name: value for name, value in record["variables"].items() if name not in environ}
    # AWQ_CHAT_MODEL and CHAT_MODEL name one thing: the environment's one hides the record's other one.
    for role in _ROLES:
        names = {f"AWQ_{role}_MODEL", f"{role}_MODEL"}
        if any(environ.get(name) for name in names):
            taken = {name: value for name, value in taken.items() if name not in names}
    if deploy:
        taken["DEPLOY_MODELS"] = deploy
        merged = {**environ, **taken}
        named = [role for role in _ROLES if merged.get(f"AWQ_{role}_MODEL") or merged.get(f"{role}_MODEL")]
        wanted = _ROLES if deploy == "both" else (deploy.upper(),)
        for role in wanted:
            if named and role not in named:
                raise RecordError(f"the last start had no {role.lower()} model: set {role}_MODEL or AWQ_{role}_MODEL")
    return taken


def _exports(deploy: str | None) -> None:
    path = Path(os.environ.get("RUN_DIR") or ROOT / ".run") / "last_start.json"
    record = read(path)
    taken = reused(record, os.environ, deploy)
    from_record = {name: value for name, value in taken.items() if record["variables"].get(name) == value}
    kind = "4-bit weights" if record["awq"] else "weights as they are stored"
    print(f"yap: reusing the start of {record['started']}: {kind}", file=sys.stderr)
    for name, value in sorted(from_record.items()):
        print(f"yap:   {name}={value}", file=sys.stderr)
    for name in sorted(set(record["variables"]) - set(from_record)):
        now = taken.get(name, os.environ.get(name, "")) or "(empty)"
        print(f"yap:   {name}={now} (now; was {record['variables'][name]})", file=sys.stderr)
    for name, value in taken.items():
        print(f"export {name}={shlex.quote(value)}")
    print(f"recorded_awq={int(record['awq'])}")


def setting_names(source: Path = ROOT / "yapserver" / "env.py") -> list[str]:
    """The names of the server's settings, read from their module without importing what the module needs."""
    fields = (node.target for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.AnnAssign))
    return [field.id for field in fields if isinstance(field, ast.Name) and field.id.isupper()]


def _collect(awq: bool) -> None:
    path = Path(os.environ["RUN_DIR"]) / "last_start.json.new"
    from_file = missing_from({"ENV_FILE": os.environ["ENV_FILE"]} if "ENV_FILE" in os.environ else {}, ROOT)
    record = collect(os.environ, awq, from_file, setting_names())
    path.unlink(missing_ok=True)
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600), encoding="utf-8") as file:
        json.dump(record, file, indent=1)


def main() -> int:
    """Command line; returns the exit status."""
    try:
        if sys.argv[1] == "collect":
            _collect(sys.argv[2] == "1")
        else:
            _exports(sys.argv[2] if len(sys.argv) > 2 else None)
    except (RecordError, EnvironmentFileError) as error:
        print(f"yap: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
