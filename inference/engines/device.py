"""The machine: probed once, constant afterwards."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Device:
    """Facts of the machine.

    `kind` is `cuda` or `cpu`. `memory` and `free_memory` are bytes of the GPU, or of the host within the container's
    limit. `capability` is the GPU's compute capability, for example (9, 0). `cores` are usable CPU ids, one per
    physical core. `flags` are the CPU's instruction sets.
    """

    kind: str
    memory: int
    free_memory: int
    capability: tuple[int, int] = (0, 0)
    cores: tuple[int, ...] = (0,)
    flags: frozenset[str] = frozenset()

    @property
    def has_fp8(self) -> bool:
        """Whether the GPU has native fp8 arithmetic: Ada, Hopper and later."""
        return self.kind == "cuda" and self.capability >= (8, 9)

    @property
    def has_avx512(self) -> bool:
        return "avx512f" in self.flags

    @property
    def has_bf16(self) -> bool:
        """Whether a CPU multiplies bfloat16 natively."""
        return bool({"amx_bf16", "avx512_bf16", "bf16"} & self.flags)

    def __str__(self) -> str:
        if self.kind == "cuda":
            return f"GPU of capability {self.capability[0]}.{self.capability[1]}, {self.memory / GIB:.0f} GiB"
        best = next((f for f in ("amx_tile", "avx512_bf16", "avx512f", "avx2") if f in self.flags), "no AVX2")
        return f"CPU with {len(self.cores)} cores, {best}, {self.memory / GIB:.0f} GiB"


def probe() -> Device:
    """The facts of this machine. Imports torch; does not start CUDA in this process beyond asking for the device's
    facts."""
    import torch

    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        free, total = torch.cuda.mem_get_info(0)
        return Device("cuda", total, free, (facts.major, facts.minor), _cores(), cpu_flags())
    total, free = _memory()
    return Device("cpu", total, free, cores=_cores(), flags=cpu_flags())


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the instruction sets of this machine's processor; standard library only."""
    if platform.system() != "Linux":
        return frozenset()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _cores() -> tuple[int, ...]:
    """Return the CPU ids of this process; hyper-threads of one core count once."""
    allowed: Sequence[int]
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    first: dict[str, int] = {}
    for cpu in allowed:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        first.setdefault(siblings.read_text().strip() if siblings.exists() else str(cpu), cpu)
    return tuple(first.values())


def _memory() -> tuple[int, int]:
    """Return total and available memory in bytes, within the container's limit."""
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
