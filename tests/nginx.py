"""A real nginx with the configuration that `docker/compose/nginx.conf` ships, on this machine's ports."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.server import CHECKOUT

SHIPPED = CHECKOUT / "docker" / "compose" / "nginx.conf"
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def nginx_binary() -> str | None:
    """Return the path of nginx; None where it is not installed."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def need_nginx() -> None:
    """Skip the test where scripts/test.sh could not install nginx and says why; fail where nginx is only missing."""
    if nginx_binary() is None:
        if reason := os.environ.get("YAP_NO_NGINX"):
            pytest.skip(f"nginx: {reason}")
        pytest.fail("nginx is missing: apt-get install nginx")


def make_certificate(folder: Path) -> None:
    """Write a self-signed certificate for 127.0.0.1: `fullchain.pem` and `privkey.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "yap.example.com")])
    names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1")), x509.DNSName("yap.example.com")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class Nginx:
    """One nginx in front of servers on 127.0.0.1. Its certificate is trusted through :attr:`tls`.

    Args:
        folder: For the configuration, the certificate and the logs; made where it is missing.
        ports: Ports of the one or two servers in `upstream yap`.
    """

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        from tests.servers import free_port  # a pytest plugin, so pytest has to import it first

        self.folder = folder
        self.port, self.plain_port = free_port(), free_port()
        self.origin = f"https://127.0.0.1:{self.port}"
        self.ws_url = f"wss://127.0.0.1:{self.port}/ws"
        self.access_log, self.error_log = folder / "access.log", folder / "error.log"
        make_certificate(folder)
        self.tls = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))
        self._configuration = folder / "nginx.conf"
        self._configuration.write_text(self._rendered(ports))
        self._process: subprocess.Popen[bytes] | None = None

    def _rendered(self, ports: Sequence[int]) -> str:
        """Return the shipped file with other addresses, paths and nothing else."""
        text = SHIPPED.read_text()
        first, *others = ports
        changes = {
            "server yap-1:8000 ": f"server 127.0.0.1:{first} ",
            "        server yap-2:8000 max_fails=0;\n": "".join(
                f"        server 127.0.0.1:{port} max_fails=0;\n" for port in others
            ),
            "listen 80;": f"listen 127.0.0.1:{self.plain_port};",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            "/etc/nginx/tls/": f"{self.folder}/",
            "/run/nginx.pid": f"{self.folder}/nginx.pid",
            "/dev/stdout": str(self.access_log),
            "/dev/stderr": str(self.error_log),
            "worker_rlimit_nofile 65536;\n": "worker_rlimit_nofile 8192;\n"
            + ("user root;\n" if os.geteuid() == 0 else ""),
            "worker_connections 16384;": "worker_connections 4096;",
            "http {\n": "http {\n" + "".join(f"    {name}_temp_path {self.folder}/{name};\n" for name in _TEMPORARY),
        }
        for old, new in changes.items():
            assert old in text, f"{SHIPPED}: no {old!r}"
            text = text.replace(old, new)
        return text

    def check(self) -> str:
        """Run nginx's own test of the file; return what it says. Raises ``CalledProcessError`` where it is wrong."""
        done = subprocess.run(self._command("-t"), capture_output=True, text=True, timeout=20, check=True)
        return done.stderr

    def start(self) -> Nginx:
        """Start it, and wait until it takes connections."""
        with self.error_log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command("-g", "daemon off;"), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until = time.monotonic() + 10
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            assert self._process.poll() is None, self.error_log.read_text()
            assert time.monotonic() < until, "nginx does not listen"
            time.sleep(0.01)

    def stop(self) -> None:
        """End it at once. Idempotent."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def _command(self, *options: str) -> list[str]:
        binary = nginx_binary()
        assert binary, "nginx is missing"
        return [binary, "-p", str(self.folder), "-c", str(self._configuration), *options]
