"""Push an export to the Hub, once per branch. Runs in the server's environment (huggingface_hub 2)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scripts.model_source import hub_endpoint, hub_token
from scripts.push_target import PushError, PushTarget
from scripts.quantizer.exports import METADATA

TRIES = 4
# Beside the export and not in it, so that the folder stays what was pushed.
_RECORD = ".{name}.pushed.json"
_IGNORED = ["*.tmp", "*.log", "__pycache__/*", ".*"]


def push_export(
    export: Path, target: PushTarget, environ: Mapping[str, str], say: Callable[[str], None], pause: float = 2.0
) -> None:
    """Push one export, unless the same export is on the branch already.

    Files that reached the Hub before a connection broke are not sent again: the Hub knows them by their hash.

    Args:
        export: the folder.
        target: repository, branch and how to create them.
        environ: the variables: the Hub's address and token.
        say: called with lines for the operator.
        pause: seconds before the second try; doubled for each further one.

    Raises:
        PushError: the Hub refuses, or does not answer in `TRIES` tries.
    """
    from huggingface_hub import HfApi, errors
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi(endpoint=hub_endpoint(environ), token=hub_token(environ))
    facts = json.loads((export / METADATA).read_text(encoding="utf-8"))
    where = f"{target.repository} (branch {target.branch})"
    if _pushed(api, export, target) == facts["digest"]:
        say(f"{export.name} is on {where} already: not pushed again")
        return
    say(f"pushing {export.name} to {where}")
    for attempt in range(1, TRIES + 1):
        try:
            _prepare(api, target)
            done = api.upload_folder(
                repo_id=target.repository,
                folder_path=export,
                revision=target.branch,
                commit_message=target.message or f"Upload AWQ weights for {facts['source_model']}",
                ignore_patterns=_IGNORED,
            )
            break
        except errors.HfHubHTTPError as error:
            if (reason := _refusal(error, target)) is not None:
                raise PushError(f"pushing to {where}: {reason}") from None
            problem = f"the Hub answers {_status(error)}"
        except Exception as error:
            # The Hub's library lets the errors of its HTTP client through, whose package has changed its name before.
            if not isinstance(error, OSError) and not type(error).__module__.startswith(("httpx", "httpcore")):
                raise
            problem = _first_line(error)
        if attempt == TRIES:
            raise PushError(f"pushing to {where} failed: {problem}") from None
        say(f"pushing was interrupted ({problem}); try {attempt + 1} of {TRIES}")
        time.sleep(pause * 2 ** (attempt - 1))
    _remember(api, export, target, facts["digest"], str(getattr(done, "oid", "") or ""))
    say(f"pushed {export.name} to {where}")


def _prepare(api: Any, target: PushTarget) -> None:
    """Create repository and branch where they are missing and may be created."""
    from huggingface_hub import errors

    if target.create:
        api.create_repo(target.repository, private=target.private, exist_ok=True)
    else:
        try:
            api.repo_info(target.repository)
        except errors.RepositoryNotFoundError:
            raise PushError(
                f"pushing: {target.repository} does not exist, or HF_TOKEN may not see it, and HF_AWQ_ALLOW_CREATE is 0"
            ) from None
    if target.branch != "main":
        api.create_branch(target.repository, branch=target.branch, exist_ok=True)


def _status(error: Any) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def _refusal(error: Any, target: PushTarget) -> str | None:
    """Why another try is of no use; None where one may succeed."""
    status = _status(error)
    return {
        400: f"the Hub refuses the request ({_first_line(error)})",
        401: "the Hub does not know HF_TOKEN",
        403: f"HF_TOKEN may not write to {target.repository}",
        404: "no such repository, or HF_TOKEN may not see it",
        409: "another commit changed the branch at the same time; push again",
        413: "the Hub refuses the size",
    }.get(status)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


def _record(export: Path) -> Path:
    return export.parent / _RECORD.format(name=export.name)


def _read_record(export: Path) -> dict[str, Any]:
    try:
        found = json.loads(_record(export).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _pushed(api: Any, export: Path, target: PushTarget) -> str | None:
    """The digest of the export that the branch holds by our record, if the branch is still there."""
    entry = _read_record(export).get(f"{api.endpoint} {target.repository}@{target.branch}")
    if not isinstance(entry, dict):
        return None
    try:
        api.repo_info(target.repository, revision=target.branch)
    except Exception:  # deleted, hidden or out of reach: the push itself finds out and says so
        return None
    return str(entry.get("digest"))


def _remember(api: Any, export: Path, target: PushTarget, digest: str, commit: str) -> None:
    record = _read_record(export)
    record[f"{api.endpoint} {target.repository}@{target.branch}"] = {"digest": digest, "commit": commit}
    _record(export).write_text(json.dumps(record, indent=1), encoding="utf-8")
