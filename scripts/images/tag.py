"""Print the tag of a mixed image and a line that names its models. Standard library only; docker/build.sh calls it.

Reads DEPLOY_MODELS, CHAT_MODEL, AWQ_CHAT_MODEL, TOOL_MODEL, AWQ_TOOL_MODEL and the Hub's variables. Exit status 1 with
one line on stderr where the models cannot be embedded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from inference.engines import model_config
from inference.engines.spec import ModelRefused
from scripts.images.embed_models import EmbedError, sources
from scripts.model_source import SourceError, config_text


def kind(role: str, source: str, awq: bool, environ: Mapping[str, str]) -> str:
    """Return the word of one engine in the tag: `fp8` for float weights, `awq`, or `gptq`.

    Raises:
        EmbedError, SourceError: the model cannot be read, or is not what its variable says.
    """
    try:
        config = model_config.parse(source, config_text(role, source, environ))
    except ModelRefused as refusal:
        raise EmbedError(f"{role}: {refusal}") from None
    if config.is_awq != awq:
        held = "4-bit AWQ weights" if config.is_awq else f"{config.quantization or 'float'} weights"
        raise EmbedError(f"the {role} model has {held}: use {'AWQ_' if config.is_awq else ''}{role.upper()}_MODEL")
    if config.quantization is None:
        return "fp8"  # what a GPU with fp8 makes of float weights while it loads them
    return "awq" if awq else "gptq" if "gptq" in config.quantization else config.quantization


def tag(kinds: Mapping[str, str]) -> str:
    """Return the tag: `both-awq`, `both-chat-fp8-tool-awq`, `chat-gptq` and so on."""
    if len(kinds) == 1:
        return "-".join(next(iter(kinds.items())))
    if kinds["chat"] == kinds["tool"]:
        return f"both-{kinds['chat']}"
    return f"both-chat-{kinds['chat']}-tool-{kinds['tool']}"


def main() -> int:
    """Command line; returns the exit status."""
    try:
        found = sources(os.environ)
        kinds = {role: kind(role, source, awq, os.environ) for role, (source, awq) in found.items()}
    except (EmbedError, SourceError) as error:
        print(f"yap: {error}", file=sys.stderr)
        return 1
    print(tag(kinds))
    print(
        " ".join(
            f"{role}={Path(source).name if Path(source).is_dir() else source}" for role, (source, _) in found.items()
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
