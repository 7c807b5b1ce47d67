"""A Docker Engine of our own for tests, with a stand-in for the official Python image made from Debian's packages.

Debian's `docker.io` is used and not whatever `docker` is first in PATH: another client may lack BuildKit's frontend.
The stand-in is built by mmdebstrap from this machine's Debian mirror, because tests ask no registry.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

CLIENT, DAEMON, REGISTRY = "/usr/bin/docker", "/usr/sbin/dockerd", "/usr/bin/docker-registry"
BASE = "python:3.11-slim-bookworm"
PACKAGES = "ca-certificates,passwd,python3,python3-venv,python3-pip,libexpat1"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def missing() -> str | None:
    """Return why no Docker Engine can run here; None where it can."""
    if os.getuid() != 0:
        return "not root"
    absent = [name for name in (CLIENT, DAEMON, REGISTRY, "/usr/bin/mmdebstrap") if not Path(name).exists()]
    return f"not installed: {', '.join(absent)} (Debian: docker.io docker-registry mmdebstrap)" if absent else None


class DockerDaemon:
    """One daemon with its state in a folder, no rules in the machine's firewall, and nothing left of it afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {**os.environ, "DOCKER_HOST": f"unix://{folder / 'docker.sock'}", "DOCKER": CLIENT,
                        "DOCKER_CONFIG": str(folder / "config")}  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> DockerDaemon:
        """Start the daemon and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            DAEMON, "--iptables=false", "--ip-forward=false", "--ip-masq=false", "--storage-driver=overlay2",
            f"--data-root={self.folder / 'data'}", f"--exec-root={self.folder / 'exec'}",
            "-H", self.environ["DOCKER_HOST"], "-p", str(self.folder / "pid"),
        ]  # fmt: skip
        with (self.folder / "dockerd.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while self.run("info", check=False).returncode:
            assert self._process.poll() is None, (self.folder / "dockerd.log").read_text()[-2000:]
            assert time.monotonic() < until, "dockerd does not answer"
            time.sleep(0.5)
        return self

    def run(self, *arguments: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """`docker ARGUMENTS…`; with ``check`` a failure is an assertion with what it printed."""
        done = subprocess.run(
            [CLIENT, *arguments], env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"docker {arguments[0]}: {done.stderr[-3000:]}"
        return done

    def inspect(self, name: str) -> Any:
        """What `docker inspect` says of one image or container."""
        return json.loads(self.run("inspect", name).stdout)[0]

    def make_base(self) -> None:
        """Import the stand-in for the official image, once per state folder."""
        if self.run("image", "inspect", BASE, check=False).returncode == 0:
            return
        tree = self.folder / "base.tar"
        mirror = _mirror()
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(tree), mirror],
            stdin=subprocess.DEVNULL, check=True, timeout=1200,
        )  # fmt: skip
        self.run("import", "-c", "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", str(tree),
                 "stand-in:bare")  # fmt: skip
        tree.unlink()
        # What this machine's pip is told about its index, its wheels and its certificates.
        context = self.folder / "base"
        (context / "wheels").mkdir(parents=True, exist_ok=True)
        for folder in _pip("find-links").split():
            for wheel in Path(folder).glob("torch-*+cpu-*.whl"):
                shutil.copy(wheel, context / "wheels")
        shutil.copy(CERTIFICATES, context / "ca-certificates.crt")
        variables = {"SSL_CERT_FILE": CERTIFICATES, "PIP_CERT": CERTIFICATES, "PIP_FIND_LINKS": "/opt/wheels"}
        if index := _pip("index-url"):
            variables["PIP_INDEX_URL"] = index
        (context / "Dockerfile").write_text(
            f"FROM stand-in:bare\nCOPY wheels /opt/wheels\nCOPY ca-certificates.crt {CERTIFICATES}\n"
            f"ENV {' '.join(f'{name}={value}' for name, value in variables.items())}\n"
        )
        self.run("build", "--network=host", "-t", BASE, str(context))

    def stop(self) -> None:
        """End containers and daemon. Idempotent."""
        if self._process is None:
            return
        if running := self.run("ps", "-q", check=False).stdout.split():
            self.run("kill", *running, check=False)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process = None


def _mirror() -> str:
    for file in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        if file.exists():
            for line in file.read_text().splitlines():
                if line.startswith(("URIs:", "deb ")):
                    return next(word for word in line.split() if "://" in word)
    return "http://deb.debian.org/debian"


def _pip(name: str) -> str:
    done = subprocess.run(
        ["python3", "-m", "pip", "config", "get", f"global.{name}"], capture_output=True, text=True, check=False
    )
    return os.environ.get(f"PIP_{name.replace('-', '_').upper()}") or done.stdout.strip()
