from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path

import pytest

from accounts.histogram import BUCKETS
from accounts.token_budget import UnsharedTokens
from accounts.usage import TurnUsage, UsageBatch, UsageKey, UsageSum
from accounts.usage_spool import RESERVED_BYTES, Unwritten, UsageSpool


def unwritten(number: int = 1, persona: str = "ada") -> Unwritten:
    sums = UsageSum()
    turn = TurnUsage(3, "aaaaaaaa", persona, 10, 4, 5, ttft_ms=30.0, error_code="generation_timeout", tool="yes")
    sums.add_turn(turn)
    batch = UsageBatch("f" * 32, number, {UsageKey(1_800_000_000, "aaaaaaaa", persona): sums}, {3: 1_800_000_007.5})
    return Unwritten([batch], [UnsharedTokens("aaaaaaaa", 20_833, "e" * 32, 15)])


def saved(folder: Path, what: Unwritten) -> Path:
    """A process that ended and could not write."""
    spool = UsageSpool(folder)
    assert not spool.open()
    return spool.save(what)


def test_what_is_saved_is_what_the_next_start_reads(tmp_path: Path) -> None:
    path = saved(tmp_path, unwritten())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(unwritten()) == "1 turns (15 tokens)"
    spool = UsageSpool(tmp_path)
    found = spool.open()
    assert found == unwritten()
    (sums,) = found.batches[0].sums.values()
    assert sums.counts["prompt_tokens"] == 10
    assert sums.errors == Counter(generation_timeout=1)
    assert len(sums.ttft) == BUCKETS
    spool.forget_taken()
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_removed_only_when_its_usage_is_written(tmp_path: Path) -> None:
    saved(tmp_path, unwritten())
    first = UsageSpool(tmp_path)
    assert first.open()
    first.close()  # it ended before it had written what it found
    assert UsageSpool(tmp_path).open() == unwritten()


def test_files_of_living_processes_are_left_alone_and_those_of_killed_ones_removed(tmp_path: Path) -> None:
    living = UsageSpool(tmp_path)
    living.open()
    killed = UsageSpool(tmp_path)
    killed.open()
    assert killed._descriptor is not None
    os.close(killed._descriptor)  # its lock ends with it
    assert len(list(tmp_path.iterdir())) == 2
    saved(tmp_path, unwritten(2))
    assert UsageSpool(tmp_path).open() == unwritten(2)
    assert living.save(unwritten(7)).exists()


def test_a_full_disk_has_room_for_what_was_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = UsageSpool(tmp_path)
    spool.open()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_blocks * 512 >= RESERVED_BYTES
    spool.save(unwritten())
    assert path.stat().st_size < RESERVED_BYTES


def test_a_broken_file_is_left_alone_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved(tmp_path, unwritten())
    path.write_text("{")
    spool = UsageSpool(tmp_path)
    assert not spool.open()
    assert path.exists()
    assert str(path) in caplog.text
    spool.close()


def test_without_a_folder_it_says_so(tmp_path: Path) -> None:
    spool = UsageSpool(tmp_path / "missing")
    with pytest.raises(OSError, match="missing"):
        spool.open()
    with pytest.raises(OSError, match="no file"):
        spool.save(unwritten())
