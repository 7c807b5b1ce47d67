"""stop.sh ends what carries this checkout's mark, and nothing else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.scripts.checkout import Checkout

pytestmark = pytest.mark.scripts


@contextmanager
def marked(mark: str) -> Iterator[subprocess.Popen[bytes]]:
    """A sleeping process that carries ``mark`` as its checkout, running by the time this returns."""
    process = subprocess.Popen(
        ["bash", "-c", "echo up; exec sleep 300"],
        env=os.environ | {"YAP_CHECKOUT": mark},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_nothing_runs(checkout: Checkout) -> None:
    done = checkout.run("stop.sh", NUKE_ALL="0")
    assert done.returncode == 0
    assert done.stdout == "yap: no server of this checkout is running\n"


def test_only_this_checkout(checkout: Checkout) -> None:
    root = str(checkout.root)
    with marked(root) as ours, marked(root + "2") as longer, marked(os.path.dirname(root)) as parent:
        done = checkout.run("stop.sh", NUKE_ALL="0")
        assert done.returncode == 0
        assert ours.wait(timeout=10) == -9
        assert longer.poll() is None
        assert parent.poll() is None


def test_never_itself(checkout: Checkout) -> None:
    done = checkout.run("stop.sh", NUKE_ALL="0", YAP_CHECKOUT=str(checkout.root))
    assert done.returncode == 0


def test_a_reused_pid_is_left_alone(checkout: Checkout) -> None:
    with marked("/another/checkout") as other:
        (checkout.root / ".run").mkdir()
        (checkout.root / ".run/server.pid").write_text(str(other.pid))
        done = checkout.run("stop.sh", NUKE_ALL="0")
        assert done.stdout == "yap: no server of this checkout is running\n"
        assert other.poll() is None


def test_a_server_that_does_not_end_is_killed(checkout: Checkout) -> None:
    process = subprocess.Popen(
        ["bash", "-c", "trap '' TERM; echo up; while :; do sleep 300; done"],
        env=os.environ | {"YAP_CHECKOUT": str(checkout.root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    (checkout.root / ".run").mkdir()
    (checkout.root / ".run/server.pid").write_text(str(process.pid))
    done = checkout.run("stop.sh", NUKE_ALL="0", STOP_TIMEOUT_S="1")
    assert process.wait(timeout=10) == -9
    assert "not ended after 1 s" in done.stdout
