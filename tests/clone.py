"""A throw-away copy of the checkout with its packages and models: the scripts run in it with real engines."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.scripts.checkout import free_port
from tests.server import CHECKOUT, MODELS, TINY_ENV, clean_environment

KEY = "kQ4wX9vTn2LmR7pZc5sB"
BOUNDS = {name: value for name, value in TINY_ENV.items() if not name.endswith("_MODEL")}


def _copy(source: Path, target: Path) -> None:
    """Copy a tree by hard links where the file system allows; a link to a folder counts as the folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for options in ("-al", "-a"):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        if subprocess.run(["cp", options, f"{source}/.", target], capture_output=True, check=False).returncode == 0:
            return
    raise AssertionError(f"{source} cannot be copied to {target}")


class Clone:
    """The tracked files, `.venv`, and what else is named, in a folder of their own.

    Attributes:
        root: the folder.
        port: where its server listens.
    """

    def __init__(self, root: Path, models: Sequence[str], environments: Sequence[str] = (".venv",)) -> None:
        self.root = root
        self.port = free_port()
        names = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True).stdout
        for name in filter(None, names.decode().split("\0")):
            if (CHECKOUT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, root / name)
        for name in environments:
            _copy(CHECKOUT / name, root / name)
        for name in models:
            _copy(MODELS / name, root / ".models" / name)

    def run(
        self, script: str, *arguments: str, environ: Mapping[str, str] = {}, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run ``bash scripts/SCRIPT ARGUMENTS…``; stdout and stderr are captured.

        Args:
            script: name of the script.
            arguments: its arguments.
            environ: added to the environment; settings of the calling process are left out of it.
            timeout: seconds until the script is killed.
        """
        given = {"TEXT_API_KEY": KEY, "MAX_CONCURRENT_CONNECTIONS": "2", "TOOL_HARD_TIMEOUT_MS": "-1", **BOUNDS}
        variables = clean_environment(PORT=str(self.port), TAIL="0", HF_HUB_OFFLINE="1", **{**given, **environ})
        return subprocess.run(
            ["bash", f"scripts/{script}", *arguments], cwd=self.root, env=variables, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    @property
    def ws_url(self) -> str:
        """Return the address of the WebSocket."""
        return f"ws://127.0.0.1:{self.port}/ws"

    def server_pid(self) -> int | None:
        """Return the process id that the scripts recorded; None without a record."""
        file = self.root / ".run/server.pid"
        return int(file.read_text()) if file.exists() else None

    def processes(self) -> list[int]:
        """Return the process ids that carry the mark of this clone's server."""
        mark, found = f"YAP_CHECKOUT={self.root}".encode(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environ = (entry / "environ").read_bytes()
                except OSError:
                    continue
                if mark in environ.split(b"\0"):
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        """End the server and remove the folder."""
        if (self.root / "scripts/stop.sh").exists():
            self.run("stop.sh", environ={"NUKE_ALL": "0"})
        shutil.rmtree(self.root, ignore_errors=True)
