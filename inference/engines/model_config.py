"""A model's own facts, read from its config.json: what it is, how it is quantized, what its cache costs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.engines.spec import ModelRefused

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w-][\w.-]*")
# RoPE types whose factor stretches the positions that the config names.
_STRETCHING = {"linear", "dynamic", "yarn"}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """``max_positions`` is None where the config does not say. ``quantization`` is the config's ``quant_method``
    (None: float weights), ``bits`` its weight width. ``kv_values`` is how many numbers one token keeps in the cache,
    None where that is not plain attention. ``head_size`` is the width of an attention head. ``weight_bytes`` is known
    for local models only."""

    architecture: str
    max_positions: int | None
    quantization: str | None
    bits: int | None
    kv_values: int | None
    head_size: int | None
    weight_bytes: int | None


def read(model: str) -> ModelConfig:
    """The facts of a local folder or a Hub model. Raises :class:`ModelRefused` with the reason."""
    path = _config_path(model)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ModelRefused(f"model {model}: config.json is not JSON") from None
    architectures = config.get("architectures") or []
    if not architectures:
        raise ModelRefused(f"model {model}: config.json names no architecture, so this is not a model vLLM can load")
    text = config.get("text_config") or config
    method, bits = _quantization(config.get("quantization_config") or text.get("quantization_config"))
    weights = None
    if Path(model).is_dir():
        files = [*path.parent.glob("*.safetensors")] or [*path.parent.glob("*.bin")]
        if not files:
            raise ModelRefused(f"model {model}: no weights (*.safetensors) in this folder")
        weights = sum(file.stat().st_size for file in files)
    head = _head_size(text)
    return ModelConfig(str(architectures[0]), _positions(text), method, bits, _kv_values(text, head), head, weights)


def _config_path(model: str) -> Path:
    local = Path(model).expanduser()
    if local.is_dir():
        path = local / "config.json"
        if not path.is_file():
            raise ModelRefused(f"model {model}: no config.json in this folder")
        return path
    if model.startswith(("/", ".", "~")) or not _HUB_ID.fullmatch(model):
        raise ModelRefused(f"model {model}: no such folder")
    return _from_hub(model)


def _from_hub(model: str) -> Path:
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(model, "config.json"))
    except errors.GatedRepoError:
        raise ModelRefused(f"model {model}: gated on the Hub; accept its terms there and set HF_TOKEN") from None
    except errors.RepositoryNotFoundError:
        raise ModelRefused(f"model {model}: neither a folder here nor a Hub model that HF_TOKEN may read") from None
    except errors.LocalEntryNotFoundError:
        raise ModelRefused(f"model {model}: no such folder, not cached, and the Hub is out of reach") from None
    except errors.EntryNotFoundError:
        raise ModelRefused(f"model {model}: this Hub model has no config.json") from None
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()
        raise ModelRefused(f"model {model}: the Hub did not answer ({reason[0] if reason else error!r})") from None


def _positions(config: Mapping[str, Any]) -> int | None:
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
    longest = next((int(config[name]) for name in names if isinstance(config.get(name), int)), None)
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if longest is None or not isinstance(rope, Mapping):
        return longest
    if rope.get("rope_type", rope.get("type")) in _STRETCHING and isinstance(rope.get("factor"), int | float):
        return int(rope.get("original_max_position_embeddings", longest) * rope["factor"])
    return longest


def _quantization(config: Mapping[str, Any] | None) -> tuple[str | None, int | None]:
    if not config:
        return None, None
    method = str(config.get("quant_method", "unknown")).lower()
    bits = config.get("bits", config.get("w_bit"))
    groups = config.get("config_groups")
    if bits is None and isinstance(groups, Mapping):
        widths = [(group.get("weights") or {}).get("num_bits") for group in groups.values()]
        bits = min((width for width in widths if isinstance(width, int)), default=None)
    if bits is None and method in ("fp8", "fbgemm_fp8"):
        bits = 8
    return method, bits if isinstance(bits, int) else None


def _head_size(config: Mapping[str, Any]) -> int | None:
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    if isinstance(config.get("head_dim"), int):
        return int(config["head_dim"])
    return hidden // heads if isinstance(heads, int) and isinstance(hidden, int) else None


def _kv_values(config: Mapping[str, Any], head_size: int | None) -> int | None:
    layers, heads = config.get("num_hidden_layers"), config.get("num_attention_heads")
    special = any(key in config for key in ("kv_lora_rank", "layers_block_type", "sliding_window_pattern"))
    mixed = set(config.get("layer_types") or ()) - {"full_attention"}
    if not (isinstance(layers, int) and isinstance(heads, int) and head_size) or special or mixed:
        return None
    return 2 * layers * int(config.get("num_key_value_heads") or heads) * head_size
