"""What is read of a model before an engine starts: shape, positions, quantization, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors

from inference.engines import model_config
from inference.engines.model_config import ModelConfig
from inference.engines.spec import ModelRefused


def _model(folder: Path, weights: int = 8, **config: Any) -> str:
    described = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "num_attention_heads": 4} | config
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "model.safetensors").write_bytes(b"\0" * weights)
    return str(folder)


def test_a_local_model_is_read(tmp_path: Path) -> None:
    read = model_config.read(
        _model(
            tmp_path,
            hidden_size=256,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            layer_types=["full_attention"],
        )
    )
    assert read == ModelConfig("LlamaForCausalLM", 4096, None, None, 2 * 2 * 2 * 64, 64, 8, heads=4, layers=2)


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"n_positions": 1024}, 1024),
        ({}, None),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2.0}}, 8192),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        ({"text_config": {"max_position_embeddings": 2048}}, 2048),
    ],
)
def test_positions(tmp_path: Path, config: dict[str, Any], positions: int | None) -> None:
    assert model_config.read(_model(tmp_path, **config)).max_positions == positions


def _groups(**weights: Any) -> dict[str, Any]:
    inputs = weights.pop("inputs", None)
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": weights, "input_activations": inputs}},
    }


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"quant_method": "awq", "bits": 4}, ("awq", 4, "int", None)),
        ({"quant_method": "awq", "w_bit": 4}, ("awq", 4, "int", None)),
        ({"quant_method": "gptq", "bits": 8}, ("gptq", 8, "int", None)),
        ({"quant_method": "fp8"}, ("fp8", 8, "float", None)),
        ({"quant_method": "modelopt_fp4"}, ("modelopt_fp4", 4, "float", None)),
        (_groups(num_bits=4, type="int"), ("compressed-tensors", 4, "int", None)),
        (_groups(num_bits=8, type="int", inputs={"num_bits": 8}), ("compressed-tensors", 8, "int", 8)),
        (_groups(num_bits=8, type="float", inputs={"num_bits": 8}), ("compressed-tensors", 8, "float", 8)),
    ],
)
def test_a_models_own_quantization(tmp_path: Path, config: dict[str, Any], told: tuple[Any, ...]) -> None:
    read = model_config.read(_model(tmp_path, quantization_config=config))
    assert (read.quantization, read.bits, read.weight_type, read.activation_bits) == told


def test_folders_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="no such folder"):
        model_config.read(str(tmp_path / "nothing"))
    with pytest.raises(ModelRefused, match=r"no config\.json"):
        model_config.read(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelRefused, match="not JSON"):
        model_config.read(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelRefused, match="no architecture"):
        model_config.read(str(tmp_path))
    _model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelRefused, match="no weights"):
        model_config.read(str(tmp_path))


class _Answer:
    """What the Hub's errors want of an HTTP answer."""

    status_code = 404
    headers: dict[str, str] = {}
    request = None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.GatedRepoError("…", response=_Answer()), "gated"),
        (errors.RepositoryNotFoundError("…", response=_Answer()), "neither a folder here nor a Hub model"),
        (errors.RemoteEntryNotFoundError("…", response=_Answer()), r"no config\.json"),
        (errors.LocalEntryNotFoundError("…"), "out of reach"),
        (OSError("no route\nto host"), "no route"),
    ],
)
def test_hub_models_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
    def refuse(model: str, name: str) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(ModelRefused, match=reason) as refusal:
        model_config.read("an-author/a-model")
    assert "\n" not in str(refusal.value)
