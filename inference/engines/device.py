"""The machine that engines run on: GPUs, processor cores, memory. Probed once, before the first engine."""

from __future__ import annotations

import importlib
import logging
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. ``identifier`` is its entry for ``CUDA_VISIBLE_DEVICES``; ``memory`` and ``free_memory`` are bytes."""

    identifier: str
    name: str
    memory: int
    free_memory: int
    capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Device:
    """The machine, or the part of it that one engine may use.

    Attributes:
        kind: ``cuda`` or ``cpu``.
        memory: bytes of the memory that engines live in: of the smallest GPU, or the container's limit.
        free_memory: free bytes of it.
        capability: the GPUs' lowest compute capability, e.g. (9, 0).
        cores: the CPU ids that this process may use, one for each physical core.
        flags: the processor's instruction sets.
        gpus: the visible GPUs, in the order of their PCI bus ids.
    """

    kind: str
    memory: int
    free_memory: int
    capability: tuple[int, int] = (0, 0)
    cores: tuple[int, ...] = (0,)
    flags: frozenset[str] = frozenset()
    gpus: tuple[Gpu, ...] = ()

    @property
    def has_fp8(self) -> bool:
        """Whether the GPU has native fp8 arithmetic: Ada, Hopper and later."""
        return self.kind == "cuda" and self.capability >= (8, 9)

    @property
    def has_avx512(self) -> bool:
        """Whether the processor has AVX-512."""
        return "avx512f" in self.flags

    @property
    def has_bf16(self) -> bool:
        """Whether the processor multiplies bfloat16 natively."""
        return bool({"amx_bf16", "avx512_bf16", "bf16"} & self.flags)

    def with_gpus(self, indices: Sequence[int]) -> Device:
        """Return the machine restricted to some of its GPUs.

        Args:
            indices: positions in :attr:`gpus`; at least one, and each must exist.
        """
        return _cuda_device([self.gpus[index] for index in indices], self.cores, self.flags)

    def __str__(self) -> str:
        if self.kind == "cuda":
            count = f"{len(self.gpus)} GPUs" if len(self.gpus) > 1 else "GPU"
            return f"{count} of capability {self.capability[0]}.{self.capability[1]}, {self.memory / GIB:.0f} GiB"
        best = next((f for f in ("amx_tile", "avx512_bf16", "avx512f", "avx2") if f in self.flags), "no AVX2")
        return f"CPU with {len(self.cores)} cores, {best}, {self.memory / GIB:.0f} GiB"


def probe(visible: str | None = None) -> Device:
    """Return the facts of this machine. GPUs are read with NVML, which creates no CUDA context in this process.

    Args:
        visible: the value of ``CUDA_VISIBLE_DEVICES``; None shows all GPUs.
    """
    import torch

    gpus = _gpus(visible) if torch.version.cuda is not None else []
    if gpus:
        return _cuda_device(gpus, _cores(), cpu_flags())
    total, free = _memory()
    return Device("cpu", total, free, cores=_cores(), flags=cpu_flags())


def _cuda_device(gpus: Sequence[Gpu], cores: tuple[int, ...], flags: frozenset[str]) -> Device:
    return Device(
        "cuda",
        min(gpu.memory for gpu in gpus),
        min(gpu.free_memory for gpu in gpus),
        min(gpu.capability for gpu in gpus),
        cores,
        flags,
        tuple(gpus),
    )


def _gpus(visible: str | None) -> list[Gpu]:
    """Return the GPUs that ``CUDA_VISIBLE_DEVICES`` lets this process see; empty without an NVIDIA driver."""
    try:
        nvml: Any = importlib.import_module("pynvml")  # package nvidia-ml-py; requirements.txt locks it for CUDA
        nvml.nvmlInit()
    except Exception as error:  # no package, no driver, or a driver of another version
        logger.warning("no GPU can be read with NVML: %s", error)
        return []
    try:
        found = [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
        uuids = [nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(len(found))]
    finally:
        nvml.nvmlShutdown()
    return _visible(found, [str(uuid) for uuid in uuids], visible)


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(str(index), str(nvml.nvmlDeviceGetName(handle)), int(memory.total), int(memory.free), (major, minor))


def _visible(gpus: Sequence[Gpu], uuids: Sequence[str], visible: str | None) -> list[Gpu]:
    """Apply ``CUDA_VISIBLE_DEVICES``: indices or beginnings of UUIDs; the list ends at the first unknown entry."""
    if visible is None:
        return list(gpus)
    chosen: list[Gpu] = []
    for entry in filter(None, map(str.strip, visible.split(","))):
        position = int(entry) if entry.isdigit() else next((n for n, u in enumerate(uuids) if u.startswith(entry)), -1)
        if not 0 <= position < len(gpus):
            break
        chosen.append(replace(gpus[position], identifier=entry))
    return chosen


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the instruction sets of this machine's processor; standard library only."""
    if platform.system() != "Linux":
        return frozenset()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _cores() -> tuple[int, ...]:
    """Return the CPU ids that this process may run on; of the hyper-threads of one core the first."""
    allowed: Sequence[int]
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    first: dict[str, int] = {}
    for cpu in allowed:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        first.setdefault(siblings.read_text().strip() if siblings.exists() else str(cpu), cpu)
    return tuple(first.values())


def _memory() -> tuple[int, int]:
    """Return (all bytes, available bytes), at most the container's limit."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = total
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
        free = min(free, int(text) - int(used.read_text()))
    return total, free
