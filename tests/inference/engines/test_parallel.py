"""Several GPUs for an engine: the specs, the checks before a start, and the arguments for vLLM. No GPU is needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from inference.engines.arguments import plan
from inference.engines.base import EngineRole
from inference.engines.device import GIB, Device, Gpu, _visible
from inference.engines.model_config import ModelConfig
from inference.engines.spec import EngineSpec, ModelRefused, parse_gpus, specs
from inference.engines.topology import engine_cores
from yapserver.env import Environment
from yapserver.environment_errors import explain

CHAT = EngineSpec(EngineRole.CHAT, "m", 4096)
MODEL = ModelConfig("LlamaForCausalLM", 8192, None, None, 2 * 32 * 8 * 128, 128, 16 * GIB, heads=32, layers=32)
GPUS = tuple(Gpu(str(index), "H100", 80 * GIB, 79 * GIB, (9, 0)) for index in range(8))
NODE = Device("cuda", 80 * GIB, 79 * GIB, (9, 0), tuple(range(64)), gpus=GPUS)
CPU = Device("cpu", 16 * GIB, 14 * GIB, cores=(0, 1), flags=frozenset({"avx2"}))


def made(**settings: Any) -> list[EngineSpec]:
    return specs(Environment.model_validate(settings))


# -- specs -----------------------------------------------------------------------------------------


def test_one_gpu_is_the_default() -> None:
    chat, tool = made()
    assert (chat.gpus, chat.world_size, chat.replicas, chat.name) == (None, 1, 1, "chat")
    assert (tool.gpus, tool.name, tool.engine_args, tool.executor) == (None, "tool", {}, None)


def test_replicas_divide_the_gpus_of_their_role() -> None:
    found = made(
        CHAT_DATA_PARALLEL=2, CHAT_TENSOR_PARALLEL=2, CHAT_GPUS="4-7", TOOL_GPUS="0", DISTRIBUTED_EXECUTOR="mp"
    )
    assert [(spec.name, spec.gpus) for spec in found] == [("chat-0", (4, 5)), ("chat-1", (6, 7)), ("tool", (0,))]
    assert [spec.gpu_fraction for spec in found] == [0.9, 0.9, 0.9], "nothing is shared"
    assert {spec.executor for spec in found} == {"mp"}


def test_without_a_list_the_first_gpus_are_taken() -> None:
    chat = [spec for spec in made(CHAT_TENSOR_PARALLEL=4) if spec.role is EngineRole.CHAT]
    assert chat[0].gpus == (0, 1, 2, 3)
    assert chat[0].gpu_fraction == 0.7
    one, two = made(DEPLOY_MODELS="chat", CHAT_DATA_PARALLEL=2)
    assert (one.gpus, two.gpus) == ((0,), (1,))


@pytest.mark.parametrize(("text", "gpus"), [(None, None), ("", None), ("3", (3,)), ("0, 2,4-6", (0, 2, 4, 5, 6))])
def test_gpu_lists(text: str | None, gpus: tuple[int, ...] | None) -> None:
    assert parse_gpus(text) == gpus


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"CHAT_GPUS": "0,0"}, "names a GPU twice"),
        ({"CHAT_GPUS": "a"}, "GPUs are numbers"),
        ({"CHAT_GPUS": "0,1"}, "CHAT_GPUS=0,1 names 2 GPUs"),
        ({"CHAT_GPUS": "0", "CHAT_TENSOR_PARALLEL": 2}, "needs 2"),
        ({"CHAT_GPUS": "0", "DISTRIBUTED_EXECUTOR": "ray"}, "the cluster chooses"),
        ({"CHAT_ENGINE_ARGS": "{"}, "CHAT_ENGINE_ARGS is not JSON"),
        ({"TOOL_ENGINE_ARGS": "[1]"}, "TOOL_ENGINE_ARGS must be a JSON object"),
        ({"CHAT_GPU_FRAC": 0.9}, "CHAT_GPU_FRAC=0.9 and TOOL_GPU_FRAC=0.2 are more"),
        ({"CHAT_MAX_LEN": 2048}, "need 2364"),
        ({"TOOL_MAX_LEN": 1500}, "TOOL_MAX_LEN=1500"),
        ({"USER_UTT_MAX_TOKENS": 4000}, "CHAT_MAX_LEN=5160"),
    ],
)
def test_settings_that_cannot_work_together_are_one_line(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as error:
        Environment.model_validate(settings)
    assert reason in explain(error.value)
    assert "\n" not in explain(error.value)


def test_settings_of_an_engine_that_is_not_deployed_do_not_matter() -> None:
    assert len(made(DEPLOY_MODELS="chat", TOOL_MAX_LEN=100, TOOL_GPUS="x", CHAT_GPU_FRAC=0.9)) == 1
    assert made(CHAT_GPU_FRAC=0.9, TOOL_GPU_FRAC=0.9, CHAT_GPUS="0", TOOL_GPUS="1")[0].gpu_fraction == 0.9


# -- checks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "device", "reason"),
    [
        ({"tensor_parallel": 3, "gpus": (0, 1, 2)}, NODE, "32 attention heads cannot be divided among"),
        ({"pipeline_parallel": 33, "gpus": tuple(range(8))}, NODE, "33 stages for 32 layers"),
        ({"tensor_parallel": 16, "gpus": tuple(range(16))}, NODE, "needs GPU 15, and this machine has 8"),
        ({"tensor_parallel": 2, "gpus": (0,)}, NODE, "leaves 1 GPUs"),
        ({"gpus": (8,)}, NODE, "needs GPU 8"),
        ({"gpus": (0,)}, CPU, "no GPU that vLLM can use"),
        ({"tensor_parallel": 4}, CPU, "needs a core for each process"),
        ({"executor": "ray"}, NODE, "needs the package ray"),
        ({"executor": "ray", "replicas": 2}, NODE, "CHAT_DATA_PARALLEL needs DISTRIBUTED_EXECUTOR=mp"),
    ],
)
def test_what_cannot_run_is_refused_before_minutes_are_spent(
    change: dict[str, Any], device: Device, reason: str
) -> None:
    with pytest.raises(ModelRefused, match=reason):
        plan(replace(CHAT, **change), device, MODEL)


def test_memory_counts_for_the_gpus_that_are_chosen() -> None:
    small = replace(GPUS[0], memory=8 * GIB, free_memory=8 * GIB)
    node = replace(NODE, gpus=(small, *GPUS[1:]))
    assert plan(replace(CHAT, gpus=(1,)), node, MODEL).arguments
    with pytest.raises(ModelRefused, match=r"of the GPU; its share is 7\.2 GiB"):
        plan(replace(CHAT, gpus=(0,), quantization="none"), node, MODEL)
    big = replace(MODEL, weight_bytes=280 * GIB, quantization="awq")
    with pytest.raises(ModelRefused, match="GiB of the GPU"):
        plan(CHAT, NODE, big)
    assert plan(replace(CHAT, tensor_parallel=8, gpus=tuple(range(8))), NODE, big).arguments


# -- arguments -------------------------------------------------------------------------------------


def test_tensor_parallel_arguments() -> None:
    launch = plan(replace(CHAT, tensor_parallel=2, pipeline_parallel=2, gpus=(4, 5, 6, 7)), NODE, MODEL)
    assert launch.arguments["tensor_parallel_size"] == launch.arguments["pipeline_parallel_size"] == 2
    assert launch.arguments["distributed_executor_backend"] == "mp"
    assert launch.process_environ == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "4,5,6,7"}
    assert launch.facts["gpus"] == [4, 5, 6, 7]
    assert (launch.facts["tensor_parallel"], launch.facts["pipeline_parallel"]) == (2, 2)
    assert "data_parallel" not in launch.facts


def test_an_engine_on_one_gpu_has_no_parallel_arguments() -> None:
    launch = plan(CHAT, NODE, MODEL)
    assert not {"tensor_parallel_size", "distributed_executor_backend"} & set(launch.arguments)
    assert launch.process_environ == {}


def test_cpu_processes_are_bound_to_a_core_each() -> None:
    launch = plan(replace(CHAT, tensor_parallel=2), CPU, replace(MODEL, weight_bytes=GIB))
    assert launch.arguments["distributed_executor_backend"] == "mp"
    assert launch.process_environ == {"VLLM_CPU_OMP_THREADS_BIND": "0|1", "TORCH_COMPILE_DISABLE": "1"}


def test_replicas_on_a_cpu_divide_cores_and_memory() -> None:
    device = replace(CPU, cores=tuple(range(9)))
    two = [replace(CHAT, replicas=2, replica=index) for index in range(2)]
    assert [engine_cores(spec, device) for spec in two] == [(0, 2, 4, 6), (1, 3, 5, 7)]
    assert [engine_cores(spec, CPU) for spec in two] == [(0,), (1,)]
    small = replace(MODEL, weight_bytes=GIB, kv_values=1024)
    alone = plan(replace(CHAT, max_num_seqs=4000), CPU, small).arguments["kv_cache_memory_bytes"]
    shared = plan(replace(two[0], max_num_seqs=4000), CPU, small).arguments["kv_cache_memory_bytes"]
    assert shared < alone / 1.9


def test_gpus_keep_their_names_under_cuda_visible_devices() -> None:
    uuids = [f"GPU-{index}abc" for index in range(8)]
    assert [gpu.identifier for gpu in _visible(GPUS, uuids, None)] == list("01234567")
    assert [gpu.identifier for gpu in _visible(GPUS, uuids, "5,GPU-2a")] == ["5", "GPU-2a"]
    assert _visible(GPUS, uuids, "5,9,1")[0].identifier == "5"
    assert len(_visible(GPUS, uuids, "5,9,1")) == 1
    assert _visible(GPUS, uuids, "") == []
