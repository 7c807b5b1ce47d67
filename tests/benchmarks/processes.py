"""Cost of one process, read from the kernel: processor time and memory, without its children."""

from __future__ import annotations

import os
import time
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Read the processor time of all threads of a process, user and system.

    The process clock has a resolution of nanoseconds. `/proc/<pid>/stat` counts in ticks of 10 ms and is the
    fallback.

    Returns:
        Seconds since the start of the process.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the value that clock_getcpuclockid(3) returns for a pid
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def anonymous_bytes(pid: int) -> int:
    """Read the memory of a process without mapped files (heap and stacks), bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{pid}/status says nothing about RssAnon")
