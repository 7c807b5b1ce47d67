"""Where an export is pushed to, by the HF_AWQ_* variables; checked before any work. Standard library only."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException

from scripts.model_source import TIMEOUT_S, hub_endpoint, hub_token

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_BRANCH = re.compile(r"[\w][\w./-]{0,119}")
_YES, _NO = {"1", "true", "yes"}, {"0", "false", "no"}


class PushError(Exception):
    """An export cannot be pushed; the message is one line for an operator and never holds the token."""


@dataclass(frozen=True, slots=True)
class PushTarget:
    """One repository on the Hub. ``message`` is the commit's; None: `Upload AWQ weights for <source>`."""

    repository: str
    branch: str
    private: bool
    create: bool
    message: str | None


def flag(environ: Mapping[str, str], name: str, default: bool) -> bool:
    """Return a boolean variable.

    Raises:
        PushError: the value is no boolean.
    """
    value = (environ.get(name) or "").strip().lower()
    if value and value not in _YES | _NO:
        raise PushError(f"{name}={value!r}: allowed are 1/0, true/false, yes/no")
    return value in _YES if value else default


def wants_push(asked: bool, environ: Mapping[str, str]) -> bool:
    """Whether exports are pushed: by `--push` or by `HF_AWQ_PUSH`."""
    return flag(environ, "HF_AWQ_PUSH", False) or asked


def target(role: str, environ: Mapping[str, str]) -> PushTarget:
    """Return the push target of one role.

    Raises:
        PushError: no repository is named, the name is a placeholder or malformed, or a variable has a bad value.
    """
    name = f"HF_AWQ_{role.upper()}_REPO"
    repository = (environ.get(name) or "").strip()
    if not repository or repository.startswith("your-org/"):
        raise PushError(f"pushing needs {name} (owner/name of a repository on the Hub)")
    if not _REPOSITORY.fullmatch(repository) or "--" in repository or ".." in repository:
        raise PushError(f"{name}={repository!r}: not owner/name of a repository on the Hub")
    branch = (environ.get("HF_AWQ_BRANCH") or "main").strip()
    if not _BRANCH.fullmatch(branch) or ".." in branch:
        raise PushError(f"HF_AWQ_BRANCH={branch!r}: not the name of a branch")
    return PushTarget(
        repository,
        branch,
        private=flag(environ, "HF_AWQ_PRIVATE", True),
        create=flag(environ, "HF_AWQ_ALLOW_CREATE", True),
        message=environ.get(f"HF_AWQ_COMMIT_MSG_{role.upper()}") or None,
    )


def check_targets(roles: Sequence[str], environ: Mapping[str, str]) -> None:
    """Check token and repositories before any work: what is named, who the token belongs to, whether it may write.

    Raises:
        PushError: the first check that fails.
    """
    if not roles:
        return
    if not hub_token(environ):
        raise PushError("pushing needs HF_TOKEN, a token that may write")
    for role in roles:
        target(role, environ)
    request = urllib.request.Request(
        f"{hub_endpoint(environ)}/api/whoami-v2", headers={"Authorization": f"Bearer {hub_token(environ)}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # nosec B310  # the Hub's address
            access = json.loads(answer.read(1 << 20)).get("auth", {}).get("accessToken", {})
    except urllib.error.HTTPError as error:
        error.close()
        reason = "the Hub does not know HF_TOKEN" if error.code == 401 else f"the Hub answers {error.code} to HF_TOKEN"
        raise PushError(f"pushing: {reason}") from None
    except (OSError, ValueError, AttributeError, HTTPException) as error:
        raise PushError(f"pushing: the Hub cannot be asked ({getattr(error, 'reason', error)})") from None
    if access.get("role") == "read":
        raise PushError("pushing: HF_TOKEN may only read; make one that may write")
