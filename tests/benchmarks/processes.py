"""What a process costs, read from the kernel: processor time and memory of that process alone, its children not."""

from __future__ import annotations

import os
import time
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads of a process, user and system, in seconds since it began.

    The kernel's clock of the process has nanoseconds; ``/proc/<pid>/stat``, which counts the same in ticks of 10 ms, is
    read where there is no such clock.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) makes of a pid
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def anonymous_bytes(pid: int) -> int:
    """Memory that is the process's own (heap and stacks, no mapped files)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{pid}/status says nothing about RssAnon")
