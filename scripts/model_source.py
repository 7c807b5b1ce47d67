"""Where a model comes from, a folder or the Hub, and what its config.json says. Standard library only."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
TIMEOUT_S = 10
MAX_CONFIG_BYTES = 4 * 1024 * 1024


class SourceError(Exception):
    """A model cannot be used; the message is one line for an operator."""


def is_local(model: str) -> bool:
    """Whether ``model`` names a folder: a path begins with `/`, `.` or `~`, or leads to a folder from here."""
    return model.startswith(("/", ".", "~")) or Path(model).is_dir()


def hub_token(environ: Mapping[str, str]) -> str | None:
    """Return the Hub token, under either of its names."""
    return environ.get("HF_TOKEN") or environ.get("HUGGINGFACE_HUB_TOKEN") or None


def hub_endpoint(environ: Mapping[str, str]) -> str:
    """Return the address of the Hub, without a slash at its end."""
    return (environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Return the folder of the Hub's cache, by the rules of huggingface_hub."""
    home = Path(environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub").expanduser()


def check_local(role: str, model: str) -> Path:
    """Return the folder of a local model.

    Raises:
        SourceError: there is no such folder, or no config.json in it.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise SourceError(f"{role} model {model} not found: no such folder")
    if not (folder / "config.json").is_file():
        raise SourceError(f"{role} model {model} is not a model: no config.json in it")
    return folder


def check_hub(role: str, model: str, environ: Mapping[str, str]) -> None:
    """Check that the Hub has ``model`` and that the token may read it. A model in the local cache is accepted as is.

    Raises:
        SourceError: the id is malformed, the model is missing, hidden or gated, or the Hub does not answer.
    """
    if not HUB_ID.fullmatch(model):
        raise SourceError(f"{role} model {model!r} is neither a folder here nor a Hub id (owner/name)")
    if _cached_config(model, environ):
        return
    answer = _get(role, model, f"{hub_endpoint(environ)}/api/models/{model}", environ)
    try:
        gated = json.loads(answer).get("gated")
    except (ValueError, AttributeError):
        raise SourceError(f"{role} model {model}: the Hub's answer is not JSON; is HF_ENDPOINT a Hub?") from None
    if gated:
        _get(role, model, f"{hub_endpoint(environ)}/{model}/resolve/main/config.json", environ, method="HEAD")


def config_text(role: str, model: str, environ: Mapping[str, str]) -> str:
    """Return the text of the model's config.json, from its folder, the Hub's cache or the Hub.

    Raises:
        SourceError: see `check_local` and `check_hub`.
    """
    if is_local(model):
        return (check_local(role, model) / "config.json").read_text(encoding="utf-8")
    if cached := _cached_config(model, environ):
        return cached.read_text(encoding="utf-8")
    return _get(role, model, f"{hub_endpoint(environ)}/{model}/resolve/main/config.json", environ).decode()


def _cached_config(model: str, environ: Mapping[str, str]) -> Path | None:
    snapshots = hub_cache(environ) / f"models--{model.replace('/', '--')}" / "snapshots"
    return next(snapshots.glob("*/config.json"), None)


def _get(role: str, model: str, url: str, environ: Mapping[str, str], method: str = "GET") -> bytes:
    token = hub_token(environ)
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # nosec B310  # the Hub's address
            body: bytes = answer.read(MAX_CONFIG_BYTES)
            return body
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403) and "/resolve/" in url:
            raise SourceError(f"{role} model {model} is gated: accept its terms on the Hub first") from None
        if error.code in (401, 403, 404):
            raise SourceError(
                f"{role} model {model} not found on the Hub, or HF_TOKEN may not see it ({error.code})"
            ) from None
        raise SourceError(f"the Hub answers {error.code} for {role} model {model}; try again later") from None
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise SourceError(f"{role} model {model}: the Hub cannot be asked ({reason}); name a local folder") from None
