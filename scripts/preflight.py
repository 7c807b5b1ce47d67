"""Check what can be checked before anything is installed: processor, port, disk, memory, models, keys, push targets.

    python3 scripts/preflight.py {cpu|cuda} {demo|named} {fresh|installed} [--awq] [--push] [--running]
                                 [--require NAME]…

Standard library only. Reads the environment that main.sh made from its arguments. The first failure is one line on
stderr and exit status 1; nothing is printed when every check passes.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from inference.engines import model_config  # noqa: E402
from inference.engines.arguments import load_quantization  # noqa: E402
from inference.engines.device import Device, cpu_flags  # noqa: E402
from inference.engines.spec import ModelRefused  # noqa: E402
from scripts.model_source import SourceError, check_hub, check_local, config_text, hub_token, is_local  # noqa: E402
from scripts.push_target import PushError, check_targets, wants_push  # noqa: E402
from yapserver.environment_files import EnvironmentFileError, read_secrets  # noqa: E402

GIB = 1024**3
# GiB on disk: a fresh install of the set, the demo model while it is converted, and the quantizer's environment.
DISK = {"cpu": 4.0, "cuda": 16.0}
DISK_DEMO = 1.5
DISK_QUANTIZER = {"cpu": 1.5, "cuda": 4.0}
# GiB of free memory per engine: on a CPU its weights, its KV cache and about 1 GiB of imports; on a GPU the imports.
MEMORY_PER_ENGINE = {"cpu": 2.5, "cuda": 3.0}


class PreflightError(Exception):
    """The server cannot start like this; the message is one line for an operator."""


def check_processor(cpuinfo: str, machine: str) -> None:
    """Check that the CPU build of the engine runs here: AVX2 on x86-64, and the NUMA library, which no wheel brings."""
    if machine == "x86_64" and not re.search(r"^flags\s*:.*\bavx2\b", cpuinfo, re.MULTILINE):
        raise PreflightError("this processor has no AVX2, which the CPU build of the engine needs")
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        raise PreflightError("libnuma.so.1 is missing (on Debian: apt-get install libnuma1)") from None


def check_port(host: str, port: str, bind: bool = True) -> None:
    """Check that ``port`` is a port number and, with ``bind``, that ``host``:``port`` is free."""
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise PreflightError(f"PORT={port!r}: allowed are 1 to 65535")
    if not bind:
        return
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
    """Check that ``needed_gib`` are free where ``folder`` lies."""
    free = shutil.disk_usage(folder).free / GIB
    if free < needed_gib:
        raise PreflightError(f"{free:.1f} GiB of disk free in {folder}, about {needed_gib:.1f} needed")


def available_memory() -> float:
    """Return the free memory in GiB, by the kernel and by the cgroup of this process, whichever is less."""
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
    """Check that the engines fit into the free memory."""
    free = available_memory()
    if free < needed_gib:
        raise PreflightError(f"{free:.1f} GiB of memory free, about {needed_gib:.1f} needed for the engines")


def models(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return the model of each deployed engine; None is the demo model."""
    deploy = environ.get("DEPLOY_MODELS") or "both"
    return {
        role: environ.get(f"AWQ_{role.upper()}_MODEL") or environ.get(f"{role.upper()}_MODEL") or None
        for role in ("chat", "tool")
        if deploy in ("both", role)
    }


def check_required(environ: Mapping[str, str], deployed: Mapping[str, str | None], names: Sequence[str]) -> None:
    """Check that every required variable is set; the message lists all that are missing.

    Args:
        environ: variables and secrets.
        deployed: the model of each deployed engine.
        names: required variables; `A|B` means that one of them is enough.
    """
    missing = [name for name in names if not any(environ.get(one) for one in name.split("|"))]
    from_hub = [f"{role} model {model}" for role, model in deployed.items() if model and not is_local(model)]
    if from_hub and not hub_token(environ):
        missing.append(f"HF_TOKEN ({' and '.join(from_hub)} from the Hub)")
    if missing:
        shown = ", ".join(name.replace("|", " or ") for name in missing)
        raise PreflightError(f"not set: {shown}; required when models are named")


def this_device(kind: str) -> Device:
    """Return the facts that decide about kernels: instruction sets, or the capability of the first GPU."""
    if kind == "cpu":
        return Device("cpu", 0, 0, flags=cpu_flags())
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader", "--id=0"]
    done = subprocess.run(query, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    major, _, minor = done.stdout.strip().partition(".")
    known = major.isdecimal() and minor.isdecimal()
    return Device("cuda", 0, 0, (int(major), int(minor)) if known else (9, 0))


def check_weights(role: str, model: str | None, device: Device, awq: bool, environ: Mapping[str, str]) -> None:
    """Check that this device has kernels for the weights of one engine.

    Args:
        role: `chat` or `tool`.
        model: folder or Hub id; None is the demo model, which has float weights.
        device: see `this_device`.
        awq: whether float weights are quantized to 4 bits before the start.
        environ: the variables.

    Raises:
        PreflightError: no kernel, or weights stored otherwise than asked.
    """
    name = f"{role} model {model or 'SmolLM2-135M-Instruct'}"
    asked = environ.get(f"{role.upper()}_QUANTIZATION") or environ.get("QUANTIZATION") or "auto"
    asked = asked.strip().lower()
    given = bool(environ.get(f"AWQ_{role.upper()}_MODEL"))
    text = config_text(role, model, environ) if model else '{"architectures": ["LlamaForCausalLM"]}'
    try:
        config = model_config.parse(model or "", text)
        if awq and config.quantization is None and not given:
            if device.kind == "cpu" and not device.has_avx512:
                raise PreflightError(f"{name}: 4-bit weights need AVX-512 on a CPU, and this one has none")
            return
        if awq and not given and not config.is_awq:
            raise PreflightError(
                f"{name}: its weights are stored as {config.quantization}; awq needs float or AWQ ones"
            )
        load_quantization(name, "awq" if awq or given else asked, device, config)
    except ModelRefused as refusal:
        raise PreflightError(str(refusal)) from None


def check(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Run all checks, the cheapest first.

    Raises:
        PreflightError, SourceError, PushError: the first check that fails.
    """
    deployed = models(environ)
    push = arguments.awq and wants_push(arguments.push, environ)
    check_required(environ, deployed, arguments.require)
    places = environ.get("MAX_CONCURRENT_CONNECTIONS") or "8"
    if not places.isdecimal() or int(places) < 1:
        raise PreflightError(f"MAX_CONCURRENT_CONNECTIONS={places!r}: allowed is a whole number from 1")
    for role, model in deployed.items():
        if model and is_local(model):
            check_local(role, model)
    device: str = arguments.device
    if device == "cpu":
        check_processor(Path("/proc/cpuinfo").read_text(), platform.machine())
    check_port(environ.get("HOST") or "127.0.0.1", environ.get("PORT") or "8000", bind=not arguments.running)
    kept = Path(environ.get("MODELS_DIR") or ROOT / ".models")
    demo_missing = None in deployed.values() and not (kept / "SmolLM2-135M-Instruct/config.json").is_file()
    needed = 0.5 + DISK[device] * (arguments.state == "fresh") + DISK_DEMO * demo_missing
    check_disk(ROOT, needed + DISK_QUANTIZER[device] * (arguments.awq and not (ROOT / ".venv-quantize").is_dir()))
    if not arguments.running:
        check_memory(MEMORY_PER_ENGINE[device] * len(deployed))
    facts = this_device(device)
    for role, model in deployed.items():
        if model and not is_local(model):
            check_hub(role, model, environ)
        if model or arguments.awq:
            check_weights(role, model, facts, arguments.awq, environ)
    if push:
        check_targets([role for role in deployed if not environ.get(f"AWQ_{role.upper()}_MODEL")], environ)


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("device", choices=["cpu", "cuda"])
    parser.add_argument("kind", choices=["demo", "named"])
    parser.add_argument("state", choices=["fresh", "installed"])
    parser.add_argument("--awq", action="store_true", help="float models are quantized before the start")
    parser.add_argument("--push", action="store_true", help="exports are pushed to the Hub")
    parser.add_argument("--running", action="store_true", help="a server runs: its port and memory will be free")
    parser.add_argument("--require", action="append", default=[], metavar="NAME", help="a variable that must be set")
    arguments = parser.parse_args()
    if arguments.kind == "named":
        arguments.require = ["TEXT_API_KEY", "MAX_CONCURRENT_CONNECTIONS", *arguments.require]
    try:
        check(arguments, {**os.environ, **read_secrets(os.environ)})
    except EnvironmentFileError as error:
        print(f"yap: bad setting: {error}", file=sys.stderr)
        return 1
    except (PreflightError, SourceError, PushError) as error:
        print(f"yap: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
