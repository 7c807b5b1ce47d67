"""Put the models of a mixed image into a folder, from the build context or the Hub. Runs while an image is built.

    python scripts/images/embed_models.py EMBED MODELS

EMBED holds a folder `chat` or `tool` for each local model. The variables DEPLOY_MODELS, CHAT_MODEL, AWQ_CHAT_MODEL,
TOOL_MODEL and AWQ_TOOL_MODEL name exactly one source per engine; the Hub's token is the build secret `hf_token`.
MODELS gets `chat` and `tool`, and `models.json`: source, revision and quantization of each. Two engines of one source
share one folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from inference.engines import model_config
from inference.engines.spec import ModelRefused

SECRET = Path("/run/secrets/hf_token")
_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*"]


class EmbedError(Exception):
    """An image cannot be built like this; the message is one line."""


def sources(environ: Mapping[str, str]) -> dict[str, tuple[str, bool]]:
    """Return of each deployed engine its source, and whether it has to be AWQ.

    Raises:
        EmbedError: not exactly one source is named for an engine.
    """
    deploy = environ.get("DEPLOY_MODELS") or "both"
    if deploy not in ("both", "chat", "tool"):
        raise EmbedError(f"DEPLOY_MODELS={deploy}: allowed are both, chat, tool")
    found: dict[str, tuple[str, bool]] = {}
    for role in ("chat", "tool"):
        plain, awq = f"{role.upper()}_MODEL", f"AWQ_{role.upper()}_MODEL"
        named = [name for name in (plain, awq) if environ.get(name)]
        if deploy not in ("both", role):
            if named:
                raise EmbedError(f"{named[0]} is set, and DEPLOY_MODELS={deploy} embeds no {role} model")
            continue
        if len(named) != 1:
            raise EmbedError(f"exactly one of {plain} and {awq} is needed for the {role} engine")
        found[role] = (environ[named[0]], named[0] == awq)
    return found


def quantization(role: str, folder: Path, awq: bool) -> str:
    """Return `float`, `awq`, `gptq` or the name that the model's config gives.

    Raises:
        EmbedError: the folder holds no model, or not the kind that its variable says.
    """
    try:
        config = model_config.read(str(folder))
    except ModelRefused as refusal:
        raise EmbedError(f"{role}: {refusal}") from None
    if config.is_awq != awq:
        held = "4-bit AWQ weights" if config.is_awq else f"{config.quantization or 'float'} weights"
        raise EmbedError(f"the {role} model has {held}: use {'AWQ_' if config.is_awq else ''}{role.upper()}_MODEL")
    if config.quantization is None:
        return "float"
    return "awq" if awq else "gptq" if "gptq" in config.quantization else config.quantization


def fetch(role: str, source: str, embed: Path, folder: Path) -> str:
    """Put the model of one engine into ``folder`` and return its revision."""
    local = embed / role
    if local.is_dir():
        shutil.copytree(local, folder, copy_function=shutil.copyfile)
        return hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()[:16]
    from huggingface_hub import HfApi, errors, snapshot_download

    token = SECRET.read_text().strip() if SECRET.is_file() else None
    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        revision = str(HfApi(endpoint=endpoint, token=token or False).model_info(source).sha)
        snapshot_download(
            source, revision=revision, allow_patterns=_WANTED, local_dir=folder, token=token or False, endpoint=endpoint
        )
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.LocalEntryNotFoundError, OSError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise EmbedError(f"{role} model {source} cannot be downloaded: {reason[:200]}") from None
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return revision


def embed_all(embed: Path, models: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Embed every deployed engine's model and return the content of `models.json`."""
    record: dict[str, Any] = {}
    for role, (source, awq) in sources(environ).items():
        same = next((entry for entry in record.values() if entry["source"] == source), None)
        folder = Path(same["folder"]) if same else models / role
        revision = same["revision"] if same else fetch(role, source, embed, folder)
        record[role] = {
            "source": source,
            "revision": revision,
            "quantization": quantization(role, folder, awq),
            "folder": str(folder),
        }
    for path in models.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return record


def main() -> int:
    """Command line; returns the exit status."""
    embed, models = map(Path, sys.argv[1:])
    environ = {name: value for name, value in os.environ.items() if value}
    if not environ.get("HF_ENDPOINT"):
        os.environ.pop("HF_ENDPOINT", None)  # an empty build argument is none
    try:
        record = embed_all(embed, models, environ)
    except EmbedError as error:
        print(f"yap: {error}", file=sys.stderr)
        return 1
    (models / "models.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
