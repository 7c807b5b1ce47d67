"""Facts about a model from its config.json: architecture, quantization, cost of the KV cache."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inference.engines.spec import ModelRefused

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w-][\w.-]*")
# RoPE types whose factor multiplies the positions of the config.
_STRETCHING = {"linear", "dynamic", "yarn"}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Facts of one model.

    `max_positions` is None if the config does not name it. `quantization` is the config's `quant_method` (None: float
    weights), `bits` the width of the weights. `kv_values` is the count of cached numbers per token (None: not plain
    attention). `head_size` is the width of an attention head. `weight_bytes` is known for local models only.
    `weight_type` is `int` or `float` for quantized weights, and `activation_bits` the width of quantized activations;
    None if not quantized. `heads` and `layers` count attention heads and layers; None if the config does not name them.
    """

    architecture: str
    max_positions: int | None
    quantization: str | None
    bits: int | None
    kv_values: int | None
    head_size: int | None
    weight_bytes: int | None
    weight_type: str | None = None
    activation_bits: int | None = None
    heads: int | None = None
    layers: int | None = None

    @property
    def is_awq(self) -> bool:
        """Whether the weights alone are stored as 4-bit integers that an AWQ kernel reads."""
        stored = self.quantization in ("awq", "awq_marlin", "auto_awq", "compressed-tensors")
        return stored and (self.bits, self.weight_type, self.activation_bits) == (4, "int", None)


def read(model: str) -> ModelConfig:
    """Read the config of a local folder or a Hub model.

    Raises:
        ModelRefused: the model cannot be read; the message has the reason.
    """
    path = _config_path(model)
    config = parse(model, path.read_text(encoding="utf-8"))
    if not Path(model).expanduser().is_dir():
        return config
    files = [*path.parent.glob("*.safetensors")] or [*path.parent.glob("*.bin")]
    if not files:
        raise ModelRefused(f"model {model}: no weights (*.safetensors) in this folder")
    return replace(config, weight_bytes=sum(file.stat().st_size for file in files))


def parse(model: str, text: str) -> ModelConfig:
    """Read the facts from the text of a config.json.

    Args:
        model: the folder or Hub id, for messages.
        text: the file's content.

    Raises:
        ModelRefused: the text is no JSON object, or names no architecture.
    """
    try:
        config = json.loads(text)
    except ValueError:
        raise ModelRefused(f"model {model}: config.json is not JSON") from None
    if not isinstance(config, dict):
        raise ModelRefused(f"model {model}: config.json holds no object")
    architectures = config.get("architectures") or []
    if not architectures:
        raise ModelRefused(f"model {model}: config.json names no architecture, so this is not a model vLLM can load")
    inner = config.get("text_config") or config
    stored = _quantization(config.get("quantization_config") or inner.get("quantization_config"))
    head = _head_size(inner)
    return ModelConfig(
        str(architectures[0]), _positions(inner), stored.method, stored.bits, _kv_values(inner, head), head,
        None, stored.weight_type, stored.activation_bits,
        _count(inner.get("num_attention_heads")), _count(inner.get("num_hidden_layers")),
    )  # fmt: skip


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


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _positions(config: Mapping[str, Any]) -> int | None:
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
    longest = next((int(config[name]) for name in names if isinstance(config.get(name), int)), None)
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if longest is None or not isinstance(rope, Mapping):
        return longest
    if rope.get("rope_type", rope.get("type")) in _STRETCHING and isinstance(rope.get("factor"), int | float):
        return int(rope.get("original_max_position_embeddings", longest) * rope["factor"])
    return longest


@dataclass(frozen=True, slots=True)
class _Stored:
    method: str | None = None
    bits: int | None = None
    weight_type: str | None = None
    activation_bits: int | None = None


def _quantization(config: Mapping[str, Any] | None) -> _Stored:
    if not config:
        return _Stored()
    method = str(config.get("quant_method", "unknown")).lower()
    bits = config.get("bits", config.get("w_bit"))
    weight_type, activations = "int", None
    groups = config.get("config_groups")
    if bits is None and isinstance(groups, Mapping):
        weights = [group.get("weights") or {} for group in groups.values() if isinstance(group, Mapping)]
        inputs = [group.get("input_activations") or {} for group in groups.values() if isinstance(group, Mapping)]
        bits = min((w["num_bits"] for w in weights if isinstance(w.get("num_bits"), int)), default=None)
        activations = min((i["num_bits"] for i in inputs if isinstance(i.get("num_bits"), int)), default=None)
        weight_type = "float" if any(w.get("type") == "float" for w in weights) else "int"
    if "fp8" in method or "fp4" in method or "modelopt" in method:
        weight_type = "float"
        bits = bits if bits is not None else (4 if "fp4" in method else 8)
    return _Stored(method, bits if isinstance(bits, int) else None, weight_type, activations)


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
