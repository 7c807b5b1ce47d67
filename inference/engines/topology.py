"""Checks that an engine's parallelism fits the model and the machine, and names the GPUs and cores it runs on."""

from __future__ import annotations

import importlib.util
import socket
from urllib.parse import urlsplit

from inference.engines.base import EngineRole
from inference.engines.device import Device
from inference.engines.model_config import ModelConfig
from inference.engines.spec import EngineSpec, ModelRefused

RAY_PORT = 6379  # of a Ray head node (`ray start --head`)
RAY_CONNECT_S = 3.0


def check_topology(spec: EngineSpec, device: Device, config: ModelConfig) -> None:
    """Check everything that vLLM would find out after minutes.

    Raises:
        ModelRefused: with the variable to change.
    """
    role = spec.role.upper()
    tensor, pipeline = spec.tensor_parallel, spec.pipeline_parallel
    if config.heads is not None and config.heads % tensor:
        possible = [size for size in range(1, config.heads + 1) if config.heads % size == 0]
        raise ModelRefused(
            f"{spec.role} model {spec.model}: {config.heads} attention heads cannot be divided among "
            f"{role}_TENSOR_PARALLEL={tensor} GPUs; possible are {', '.join(map(str, possible))}"
        )
    if config.layers is not None and pipeline > config.layers:
        raise ModelRefused(
            f"{spec.role} model {spec.model}: {role}_PIPELINE_PARALLEL={pipeline} stages for {config.layers} layers"
        )
    if spec.executor == "ray":
        _check_ray(spec)
    elif device.kind == "cuda":
        _check_gpus(spec, device)
    elif spec.gpus is not None and spec.world_size * spec.replicas == 1:
        raise ModelRefused(f"{role}_GPUS is set, and this machine has no GPU that vLLM can use")
    elif spec.world_size > len(device.cores):
        raise ModelRefused(
            f"{role}_TENSOR_PARALLEL={tensor} needs a core for each process, and this machine has {len(device.cores)}"
        )


def _check_gpus(spec: EngineSpec, device: Device) -> None:
    role, there = spec.role.upper(), max(1, len(device.gpus))
    needed = spec.world_size
    chosen = spec.gpus if spec.gpus is not None else (0,)
    if len(chosen) < needed:
        raise ModelRefused(
            f"{role}_GPUS leaves {len(chosen)} GPUs for replica {spec.replica} of the {spec.role} engine, which needs "
            f"{needed} ({role}_TENSOR_PARALLEL x {role}_PIPELINE_PARALLEL), for each of {spec.replicas} replicas"
        )
    if max(chosen) >= there:
        raise ModelRefused(
            f"the {spec.role} engine needs GPU {max(chosen)}, and this machine has {there}: lower "
            f"{role}_TENSOR_PARALLEL, {role}_PIPELINE_PARALLEL or {role}_DATA_PARALLEL, or set {role}_GPUS"
        )


def _check_ray(spec: EngineSpec) -> None:
    if spec.replicas > 1:
        raise ModelRefused(f"{spec.role.upper()}_DATA_PARALLEL needs DISTRIBUTED_EXECUTOR=mp: Ray places the workers")
    if importlib.util.find_spec("ray") is None:
        raise ModelRefused("DISTRIBUTED_EXECUTOR=ray needs the package ray: uv pip install ray")
    if spec.ray_address in (None, "auto", "local"):
        return
    address = urlsplit(spec.ray_address if "//" in str(spec.ray_address) else f"ray://{spec.ray_address}")
    try:
        host, port = address.hostname or "", address.port or RAY_PORT
        socket.create_connection((host, port), timeout=RAY_CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise ModelRefused(f"RAY_ADDRESS={spec.ray_address}: no Ray head node answers there ({error})") from None


def visible_gpus(spec: EngineSpec, device: Device) -> dict[str, str]:
    """Return the environment that shows an engine's processes its GPUs alone; empty where they see all of them."""
    if spec.gpus is None or not device.gpus:
        return {}
    # CUDA numbers GPUs by speed unless the order is set; NVML numbers them by their PCI bus ids.
    chosen = ",".join(device.gpus[index].identifier for index in spec.gpus)
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": chosen}


def engine_cores(spec: EngineSpec, device: Device) -> tuple[int, ...]:
    """Return the CPU ids of one engine's threads.

    A core that the web server uses delays every thread of a step, so the server keeps the last core of three or more.
    On two cores each engine has one, and the server runs where there is room. Replicas divide the role's cores.
    """
    cores = device.cores
    if len(cores) <= 2:
        mine = (cores[-1],) if spec.role is EngineRole.TOOL and not spec.alone else (cores[0],)
        if spec.world_size > 1:
            return cores[: spec.world_size]
        return (cores[spec.replica % len(cores)],) if spec.replicas > 1 and spec.alone else mine
    free = cores[:-1]
    if not spec.alone:
        chat = max(1, len(free) * 2 // 3)
        free = free[:chat] if spec.role is EngineRole.CHAT else free[chat:]
    if spec.replicas == 1:
        return free
    return free[spec.replica :: spec.replicas] or (free[spec.replica % len(free)],)


def cpu_process_environment(spec: EngineSpec, cores: tuple[int, ...]) -> dict[str, str]:
    """Return the environment that binds the threads of a CPU engine to its cores.

    Several processes of one engine are bound by vLLM, one group of cores for each rank
    (vllm/envs.py, ``VLLM_CPU_OMP_THREADS_BIND``).
    """
    if spec.world_size > 1:
        groups = [cores[rank :: spec.world_size] or cores[-1:] for rank in range(spec.world_size)]
        return {"VLLM_CPU_OMP_THREADS_BIND": "|".join(",".join(map(str, group)) for group in groups)}
    return {
        "OMP_NUM_THREADS": str(len(cores)),
        "OMP_PROC_BIND": "true",
        "OMP_PLACES": ",".join(f"{{{core}}}" for core in cores),
    }
