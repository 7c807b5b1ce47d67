"""What is written beside an export: `awq_metadata.json` for programs, a model card (`README.md`) for people."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.quantizer.exports import METADATA

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_LICENCE_KEYS = ("license", "license_name", "license_link")


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did and measured. Sizes are bytes of weight files; ``versions`` package → version."""

    source_model: str
    source_revision: str
    hub_id: str | None
    roles: tuple[str, ...]
    digest: str
    group_size: int
    ignore: tuple[str, ...]
    calibration_kind: str
    calibration_dataset: str
    calibration_samples: int
    calibration_tokens: int
    calibration_seqlen: int
    calibration_sha256: str
    versions: dict[str, str]
    seconds: float
    bytes_before: int
    bytes_after: int
    perplexity_float: float
    perplexity_quantized: float
    perplexity_text: str
    created: str


def metadata(report: Report) -> dict[str, Any]:
    """Return the content of `awq_metadata.json`: the names that earlier deployments read, and ours beside them."""
    return {
        "source_model": report.source_model,
        "source_revision": report.source_revision,
        "awq_version": f"llmcompressor {report.versions['llmcompressor']}",
        "quantization_config": {
            "zero_point": True,
            "q_group_size": report.group_size,
            "w_bit": 4,
            "version": "compressed-tensors pack-quantized",
        },
        "calibration_seqlen": report.calibration_seqlen,
        "calibration_config": {
            "calib_dataset": report.calibration_dataset,
            "nsamples": report.calibration_samples,
            "seqlen": report.calibration_seqlen,
        },
        "is_toolcall_model": report.roles == ("tool",),
        "pipeline": "yap-text-inference",
        "digest": report.digest,
        "roles": list(report.roles),
        "group_size": report.group_size,
        "ignore": list(report.ignore),
        "format": "compressed-tensors",
        "calibration": {
            "kind": report.calibration_kind,
            "samples": report.calibration_samples,
            "tokens": report.calibration_tokens,
            "sha256": report.calibration_sha256,
        },
        "versions": report.versions,
        "seconds": round(report.seconds, 1),
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
        "perplexity": {
            "float": round(report.perplexity_float, 3),
            "quantized": round(report.perplexity_quantized, 3),
            "text": report.perplexity_text,
        },
        "created": report.created,
    }


def source_front_matter(folder: Path) -> dict[str, Any]:
    """Return the YAML head of the source's model card; empty where there is none."""
    try:
        found = _FRONT_MATTER.match((folder / "README.md").read_text(encoding="utf-8"))
        head = yaml.safe_load(found[1]) if found else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return head if isinstance(head, dict) else {}


def model_card(report: Report, source: dict[str, Any]) -> str:
    """Return the model card.

    Args:
        report: what was done.
        source: the head of the source's card; its licence is repeated as it stands there, or not at all.
    """
    head: dict[str, Any] = {key: source[key] for key in _LICENCE_KEYS if source.get(key)}
    base = report.hub_id or source.get("base_model")
    if base:
        head |= {"base_model": base, "base_model_relation": "quantized"}
    if source.get("language"):
        head["language"] = source["language"]
    tool = report.roles == ("tool",)
    tags = ["awq", "quantized", "4-bit", "compressed-tensors", *(["function-calling"] if tool else [])]
    head |= {"tags": tags, "pipeline_tag": "text-generation", "library_name": "transformers"}
    name = report.hub_id or Path(report.source_model).name
    use = {"chat": "AWQ_CHAT_MODEL", "tool": "AWQ_TOOL_MODEL"}
    variables = " ".join(f"{use[role]}=…" for role in report.roles)
    licence = source.get("license_name") or source.get("license")
    written = {
        "self": "texts that the float model wrote itself, from the prompts it is deployed with",
        "file": "texts of a file",
        "dataset": f"texts of the data set {report.calibration_dataset}",
    }[report.calibration_kind]
    return f"""---
{yaml.safe_dump(head, sort_keys=False, allow_unicode=True).strip()}
---

# {name}, AWQ 4-bit

The weights of `{name}` (revision `{report.source_revision}`) as 4-bit integers, quantized with AWQ.

| | float | quantized |
|---|---|---|
| weights | {report.bytes_before / 1e6:,.0f} MB | {report.bytes_after / 1e6:,.0f} MB |
| perplexity | {report.perplexity_float:.2f} | {report.perplexity_quantized:.2f} |

Perplexity: {report.perplexity_text}.

## Use

```sh
vllm serve FOLDER_OR_REPOSITORY
{variables} bash scripts/main.sh awq{"" if len(report.roles) == 2 else f" {report.roles[0]}"}      # Yap
```

## How it was made

- llm-compressor {report.versions["llmcompressor"]}, format compressed-tensors {report.versions["compressed-tensors"]}
  (pack-quantized): weights W4A16, asymmetric, groups of {report.group_size}
- left in 16 bits: embeddings, `lm_head`, routers and everything that is not the language model
- calibrated with {report.calibration_samples} {written}, {report.calibration_tokens:,} tokens in all

Licence: {f"`{licence}`, as the source's card says" if licence else "the source names none here; see the source"}.

`{METADATA}` holds all of this for programs.
"""


def write(folder: Path, report: Report, source_folder: Path) -> None:
    """Write both files into ``folder``."""
    (folder / METADATA).write_text(json.dumps(metadata(report), indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(report, source_front_matter(source_folder)), encoding="utf-8")
