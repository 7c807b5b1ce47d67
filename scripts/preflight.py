"""What can be checked before anything is installed: processor, port, disk, memory, models, keys. Standard library only.

    python3 scripts/preflight.py {cpu|cuda} {demo|named} {fresh|installed}

Reads the environment that main.sh made from its arguments. The first thing that is wrong is one line on stderr and
exit status 1; nothing is printed when all is well.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

GIB = 1024**3
ROOT = Path(__file__).resolve().parent.parent
# GiB on disk: a fresh install of the set, and the demo model while it is converted.
DISK = {"cpu": 4.0, "cuda": 16.0}
DISK_DEMO = 1.5
# GiB of free memory per engine: on a CPU its weights, its KV cache and about 1 GiB of imports; on a GPU the imports.
MEMORY_PER_ENGINE = {"cpu": 2.5, "cuda": 3.0}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


class PreflightError(Exception):
    """The server cannot start like this; the message is one line for an operator."""


def check_processor(cpuinfo: str, machine: str) -> None:
    """Whether the CPU build of the engine runs here: AVX2 on x86-64, and the NUMA library, which no wheel brings."""
    if machine == "x86_64" and not re.search(r"^flags\s*:.*\bavx2\b", cpuinfo, re.MULTILINE):
        raise PreflightError("this processor has no AVX2, which the CPU build of the engine needs")
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        raise PreflightError("libnuma.so.1 is missing (on Debian: apt-get install libnuma1)") from None


def check_port(host: str, port: str) -> None:
    """Whether ``host``:``port`` can be bound."""
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise PreflightError(f"PORT={port!r}: allowed are 1 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except socket.gaierror:
        raise PreflightError(f"HOST={host!r}: not an address of this machine") from None
    except OSError as error:
        reason = f"{error.strerror or error}".lower()
        raise PreflightError(f"port {port} on {host} cannot be used: {reason}; set PORT to a free one") from None


def check_disk(folder: Path, needed_gib: float) -> None:
    """Whether ``needed_gib`` are free where ``folder`` lies."""
    free = shutil.disk_usage(folder).free / GIB
    if free < needed_gib:
        raise PreflightError(f"{free:.1f} GiB of disk free in {folder}, about {needed_gib:.1f} needed")


def available_memory() -> float:
    """Free memory in GiB, by the kernel and by the cgroup this process is in, whichever is less."""
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(meminfo["MemAvailable"].split()[0]) * 1024
    cgroup = Path("/sys/fs/cgroup")
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int((cgroup / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return free / GIB


def check_memory(needed_gib: float) -> None:
    """Whether the engines fit into what is free."""
    free = available_memory()
    if free < needed_gib:
        raise PreflightError(f"{free:.1f} GiB of memory free, about {needed_gib:.1f} needed for the engines")


def check_local(role: str, model: str) -> None:
    """Whether ``model`` is a folder with a model in it."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise PreflightError(f"{role} model {model} not found: no such folder")
    if not (folder / "config.json").is_file():
        raise PreflightError(f"{role} model {model} is not a model: no config.json in it")


def check_hub(role: str, model: str, environ: Mapping[str, str]) -> None:
    """Whether the Hub knows ``model`` and shows it to this token; one that is in the local cache is taken as it is."""
    if not HUB_ID.fullmatch(model):
        raise PreflightError(f"{role} model {model!r} is neither a folder here nor a Hub id (owner/name)")
    token = environ.get("HF_TOKEN") or environ.get("HUGGINGFACE_HUB_TOKEN")
    if not token:
        raise PreflightError(f"HF_TOKEN is not set; {role} model {model} comes from the Hub")
    home = Path(environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = Path(environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    if any((cache / f"models--{model.replace('/', '--')}" / "snapshots").glob("*/config.json")):
        return
    endpoint = environ.get("HF_ENDPOINT") or "https://huggingface.co"
    request = urllib.request.Request(f"{endpoint}/api/models/{model}", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            gated = json.load(answer).get("gated")
        if gated:
            check_gate(role, model, endpoint, token)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403, 404):
            raise PreflightError(
                f"{role} model {model} not found on the Hub, or HF_TOKEN may not see it ({error.code})"
            ) from None
        raise PreflightError(f"the Hub answers {error.code} for {role} model {model}; try again later") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise PreflightError(f"{role} model {model}: the Hub cannot be asked ({reason}); name a local folder") from None


def check_gate(role: str, model: str, endpoint: str, token: str) -> None:
    """Whether this token has been let through the gate of a gated ``model``."""
    request = urllib.request.Request(
        f"{endpoint}/{model}/resolve/main/config.json", headers={"Authorization": f"Bearer {token}"}, method="HEAD"
    )
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
            raise PreflightError(f"{role} model {model} is gated: accept its terms on the Hub first") from None
        raise


def models(environ: Mapping[str, str]) -> dict[str, str | None]:
    """The model of each deployed engine; None is the demo model."""
    deploy = environ.get("DEPLOY_MODELS") or "both"
    return {
        role: environ.get(f"AWQ_{role.upper()}_MODEL") or environ.get(f"{role.upper()}_MODEL") or None
        for role in ("chat", "tool")
        if deploy in ("both", role)
    }


def check(device: str, demo: bool, fresh: bool, environ: Mapping[str, str]) -> None:
    """All checks, the cheapest first. Raises :class:`PreflightError` with the first that fails."""
    deployed = models(environ)
    if not demo:
        for name in ("TEXT_API_KEY", "MAX_CONCURRENT_CONNECTIONS"):
            if not environ.get(name):
                raise PreflightError(f"{name} is not set; it is required when models are named")
    places = environ.get("MAX_CONCURRENT_CONNECTIONS") or "8"
    if not places.isdecimal() or int(places) < 1:
        raise PreflightError(f"MAX_CONCURRENT_CONNECTIONS={places!r}: allowed is a whole number from 1")
    for role, model in deployed.items():
        if model and (model.startswith(("/", ".", "~")) or Path(model).is_dir()):
            check_local(role, model)
    if device == "cpu":
        check_processor(Path("/proc/cpuinfo").read_text(), platform.machine())
    check_port(environ.get("HOST") or "127.0.0.1", environ.get("PORT") or "8000")
    kept = Path(environ.get("MODELS_DIR") or ROOT / ".models")
    demo_missing = None in deployed.values() and not (kept / "SmolLM2-135M-Instruct/config.json").is_file()
    check_disk(ROOT, 0.5 + DISK[device] * fresh + DISK_DEMO * demo_missing)
    check_memory(MEMORY_PER_ENGINE[device] * len(deployed))
    for role, model in deployed.items():
        if model and not (model.startswith(("/", ".", "~")) or Path(model).is_dir()):
            check_hub(role, model, environ)


def main() -> int:
    """Command line; returns the exit status."""
    device, kind, state = sys.argv[1:]
    try:
        check(device, kind == "demo", state == "fresh", os.environ)
    except PreflightError as error:
        print(f"yap: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
