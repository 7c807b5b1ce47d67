"""A stand-in checkout: the real scripts beside a ``manage.py`` that serves in a tenth of a second."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

MANAGE = """
import json, os, signal, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

with open("environment", "w") as file:
    json.dump(dict(os.environ), file)
print("building engines", flush=True)
if os.environ.get("FAKE") == "dies":
    sys.exit("yap: bad setting: CHAT_MAX_LEN=1: too short")

# An engine that ignores its parent's end, in a session of its own.
engine = subprocess.Popen(["sleep", "300"], start_new_session=True)
with open("engine.pid", "w") as file:
    file.write(str(engine.pid))


class Handler(BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        Handler.asked += 1
        status, reason = (200, "") if Handler.asked > 2 else (503, "chat engine starting: loading it")
        if os.environ.get("FAKE") == "engine dies":
            status, reason = 503, "chat engine dead: no memory"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps({"status": "", "reason": reason}).encode())

    def log_message(self, *args):
        pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


def free_port() -> int:
    """A TCP port of the loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Checkout:
    """A folder that looks installed: scripts, locks, a venv with a Python, the demo model's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        for folder in ("scripts", "docker", "inference/engines"):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        (root / "yapserver").mkdir()
        for name in ("yapserver/env.py", "yapserver/environment_files.py"):
            shutil.copy(ROOT / name, root / name)
        for file in ROOT.glob("requirements*"):
            shutil.copy(file, root)
        (root / "manage.py").write_text(MANAGE)
        (root / "scripts/prepare.py").write_text('open("prepared", "w"); print("admin account: admin")')
        (root / ".venv/bin").mkdir(parents=True)
        (root / ".venv/bin/python").symlink_to(sys.executable)
        self.model(".models/SmolLM2-135M-Instruct")
        # A machine with a GPU must see the same: nvidia-smi fails here.
        (root / "bin").mkdir()
        self.program("bin/nvidia-smi", "exit 1")
        self.shell("stamp cpu >.venv/.installed")
        self.processor("avx2 avx512f")

    def processor(self, flags: str) -> None:
        """Let the scripts see a processor with these instruction sets."""
        (self.root / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        for name in ("inference/engines/device.py", "scripts/preflight.py"):
            source = (ROOT / name).read_text()
            assert '"/proc/cpuinfo"' in source, name
            (self.root / name).write_text(source.replace('"/proc/cpuinfo"', f'"{self.root / "cpuinfo"}"'))

    def model(self, path: str, **config: object) -> Path:
        """A folder that looks like a model to whoever reads its config.json."""
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], **config}))
        (folder / "model.safetensors").write_bytes(b"weights")
        return folder

    def program(self, path: str, body: str) -> None:
        """Write an executable bash script at ``path``."""
        file = self.root / path
        file.write_text(f"#!/usr/bin/env bash\n{body}\n")
        file.chmod(0o755)

    def environ(self, extra: Mapping[str, str]) -> dict[str, str]:
        """The environment a run gets: nothing of Yap's or pip's own from outside."""
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"
        return kept | {
            "PATH": path,
            "PORT": str(self.port),
            "TAIL": "0",
            "PIP_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
            **extra,
        }

    def run(self, script: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """``bash scripts/SCRIPT arguments…``; stdout and stderr are captured."""
        return self._bash([f"scripts/{script}", *arguments], environ)

    def shell(self, code: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Bash ``code`` with the scripts' functions sourced."""
        before = "set -euo pipefail; source scripts/lib.sh; source scripts/server.sh; load_env"
        return self._bash(["-c", f"{before}; {code}"], environ)

    def _bash(self, command: list[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", *command],
            cwd=self.root,
            env=self.environ(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
