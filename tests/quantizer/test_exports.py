"""Naming, reuse and publication of exports: plain files, no model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.quantizer import card, exports, prepare, recipe, sources
from scripts.quantizer.recipe import Calibration, QuantizeError
from tests.scripts.checkout import ROOT

VERSIONS = {"llmcompressor": "1", "compressed-tensors": "2", "transformers": "3", "torch": "4"}


def model(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], **config}))
    (folder / "model.safetensors").write_bytes(b"x" * 1000)
    return folder


def test_defaults_are_the_machines() -> None:
    assert recipe.calibration({}, "cpu") == Calibration("self", 8, 256)
    assert recipe.calibration({}, "cuda") == Calibration("self", 64, 2048)
    wished = {"AWQ_CALIB_DATASET": "owner/set", "AWQ_NSAMPLES": "3", "AWQ_SEQLEN": "100"}
    assert recipe.calibration(wished, "cuda") == Calibration("owner/set", 3, 100)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"AWQ_NSAMPLES": "0"}, "AWQ_NSAMPLES='0': allowed are 1 to 4096"),
        ({"AWQ_SEQLEN": "many"}, "AWQ_SEQLEN='many': allowed are 64 to 131072"),
        ({"AWQ_CALIB_DATASET": "./none.txt"}, "no such file"),
        ({"AWQ_CALIB_DATASET": "a b"}, "allowed are self, a file, or a data set of the Hub"),
    ],
)
def test_bad_calibration(variables: dict[str, str], reason: str) -> None:
    with pytest.raises(QuantizeError) as raised:
        recipe.calibration(variables, "cpu")
    assert reason in str(raised.value)


def test_the_digest_changes_with_what_shapes_an_export(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one")
    wished = Calibration("self", 8, 256)
    first = recipe.digest("a@1", wished, VERSIONS)
    assert first == recipe.digest("a@1", Calibration("self", 8, 256), dict(VERSIONS))
    others = {
        recipe.digest("a@2", wished, VERSIONS),
        recipe.digest("a@1", Calibration("self", 9, 256), VERSIONS),
        recipe.digest("a@1", wished, {**VERSIONS, "torch": "5"}),
        recipe.digest("a@1", Calibration(str(text), 8, 256), VERSIONS),
    }
    text.write_text("two")
    others.add(recipe.digest("a@1", Calibration(str(text), 8, 256), VERSIONS))
    assert len(others | {first}) == 6


def test_a_changed_folder_is_another_source(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    first = sources.resolve(str(folder))
    assert sources.resolve(str(folder)).identity == first.identity
    (folder / "model.safetensors").write_bytes(b"y" * 1001)
    assert sources.resolve(str(folder)).identity != first.identity
    (folder / "model.safetensors").unlink()
    with pytest.raises(QuantizeError, match="no weights"):
        sources.resolve(str(folder))


@pytest.mark.parametrize(
    ("source", "name"),
    [("owner/name-7B", "owner--name-7B-d"), ("/models/my model", "my-model-d"), ("./x/", "x-d")],
)
def test_names(source: str, name: str) -> None:
    assert exports.folder_name(source, "d") == name


def test_an_export_appears_complete_and_readable(tmp_path: Path) -> None:
    place = tmp_path / "awq/m-1"
    with exports.making(place) as work:
        assert work is not None
        model(work / "model")
        (work / "model/model.safetensors").chmod(0o600)
        assert not place.exists()
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o644}
    assert place.stat().st_mode & 0o777 == 0o755
    with exports.making(place) as work:
        assert work is None
    assert sorted(path.name for path in place.parent.iterdir()) == [".m-1.lock", "m-1"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "awq/m-1"

    def fails() -> None:
        with exports.making(place) as work:
            assert work is not None
            model(work / "model")
            raise QuantizeError("broken")

    with pytest.raises(QuantizeError, match="broken"):
        fails()
    assert sorted(path.name for path in place.parent.iterdir()) == [".m-1.lock"]


@pytest.mark.processes
def test_a_kill_leaves_nothing_half_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    place = tmp_path / "awq/m-1"
    code = (
        "import sys, time; from pathlib import Path; from scripts.quantizer import exports\n"
        f"with exports.making(Path({str(place)!r})) as work:\n"
        "    (work / 'model').mkdir(); (work / 'model/half').write_text('x'); print('up', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert not place.exists()
    assert len(list(place.parent.glob(".m-1-*"))) == 1
    with exports.making(place) as work:
        assert work is not None
        assert len(list(place.parent.glob(".m-1-*"))) == 1
        model(work / "model")
    assert place.is_dir()
    assert not list(place.parent.glob(".m-1-*"))


@pytest.mark.processes
def test_two_runs_make_one_export(tmp_path: Path) -> None:
    place = tmp_path / "awq/m-1"
    code = (
        "from pathlib import Path; from scripts.quantizer import exports\n"
        f"with exports.making(Path({str(place)!r})) as work: print(work)"
    )
    with exports.making(place) as work:
        assert work is not None
        other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        time.sleep(0.3)
        assert other.poll() is None
        model(work / "model")
    assert other.communicate(timeout=30)[0] == "None\n"


def test_another_folder_in_the_place_is_never_replaced(tmp_path: Path) -> None:
    place = model(tmp_path / "m")
    with pytest.raises(QuantizeError, match="is there and is not an export"):
        exports.metadata(place)
    assert exports.metadata(tmp_path / "none") is None


def test_room(tmp_path: Path) -> None:
    source = sources.resolve(str(model(tmp_path / "m")))
    sources.check_room(source, tmp_path / "not/yet", 8 * 2**30)
    with pytest.raises(QuantizeError, match=r"1\.1 GB of memory free, about 2\.0 needed to quantize"):
        sources.check_room(source, tmp_path, 2**30)
    os.truncate(source.folder / "model.safetensors", 10**13)
    with pytest.raises(QuantizeError, match=r"GB of disk free in .*, about 20000\.0 needed"):
        sources.check_room(source, tmp_path, 2**30)


# -- the plan of a start ---------------------------------------------------------------------------

AWQ = {"quantization_config": {"quant_method": "awq", "bits": 4}}


def test_what_is_awq_already_is_served_as_it_is(tmp_path: Path) -> None:
    one, two = model(tmp_path / "one", **AWQ), model(tmp_path / "two", **AWQ)
    made = prepare.prepare("cpu", False, {"AWQ_CHAT_MODEL": str(one), "TOOL_MODEL": str(two)})
    assert made == {
        "CHAT_QUANTIZATION": "awq",
        "TOOL_QUANTIZATION": "awq",
        "TOOL_MODEL": "",
        "AWQ_TOOL_MODEL": str(two),
    }


def test_one_export_for_both_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = model(tmp_path / "m"), []

    def made(name: str, roles: list[str], device: str, environ: object) -> Path:
        asked.append((name, roles))
        return tmp_path / "export"

    monkeypatch.setattr(prepare, "export_of", made)
    found = prepare.prepare("cpu", False, {"CHAT_MODEL": str(folder), "TOOL_MODEL": f"{tmp_path}/m/../m"})
    assert asked == [(str(folder), ["chat", "tool"])]
    assert found["AWQ_CHAT_MODEL"] == found["AWQ_TOOL_MODEL"] == str(tmp_path / "export")


def test_a_failure_refuses_the_start_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*arguments: object) -> Path:
        raise QuantizeError("no room")

    monkeypatch.setattr(prepare, "export_of", fails)
    environ = {"DEPLOY_MODELS": "chat", "CHAT_MODEL": str(model(tmp_path / "m"))}
    with pytest.raises(QuantizeError, match="no room"):
        prepare.prepare("cpu", False, environ)
    found = prepare.prepare("cpu", False, {**environ, "AWQ_FAIL_HARD": "0"})
    assert found == {"CHAT_MODEL": environ["CHAT_MODEL"], "AWQ_CHAT_MODEL": "", "CHAT_QUANTIZATION": "auto"}
    assert "WARNING: no room; AWQ_FAIL_HARD=0: chat served from float weights" in capsys.readouterr().err


# -- the card --------------------------------------------------------------------------------------

REPORT = card.Report(
    source_model="/m", source_revision="r1", hub_id=None, roles=("tool",), digest="d", group_size=64,
    ignore=("lm_head",),
    calibration_kind="self", calibration_dataset="self", calibration_samples=8, calibration_tokens=2000,
    calibration_seqlen=256, calibration_sha256="s", versions=VERSIONS, seconds=1.0, bytes_before=4_000_000,
    bytes_after=1_000_000, perplexity_float=10.0, perplexity_quantized=10.5, perplexity_text="some text", created="now",
)  # fmt: skip


def test_the_licence_is_the_sources_or_none(tmp_path: Path) -> None:
    source = model(tmp_path / "m")
    assert card.source_front_matter(source) == {}
    text = card.model_card(REPORT, {})
    assert "license" not in text
    assert "base_model" not in text
    (source / "README.md").write_text(
        "---\nlicense: other\nlicense_name: my-licence\nlicense_link: LICENSE\nlanguage: en\n---\n# m\n"
    )
    text = card.model_card(REPORT, card.source_front_matter(source))
    assert "license: other\nlicense_name: my-licence\nlicense_link: LICENSE\n" in text
    assert "Licence: `my-licence`, as the source's card says." in text


def test_the_card_and_the_metadata_have_the_figures(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    card.write(tmp_path / "out", REPORT, tmp_path)
    text, facts = (tmp_path / "out/README.md").read_text(), json.loads((tmp_path / "out/awq_metadata.json").read_text())
    for piece in ("| 4 MB | 1 MB |", "| 10.00 | 10.50 |", "groups of 64", "function-calling", "AWQ_TOOL_MODEL=…"):
        assert piece in text
    assert facts["quantization_config"] == {
        "zero_point": True, "q_group_size": 64, "w_bit": 4, "version": "compressed-tensors pack-quantized",
    }  # fmt: skip
    assert (facts["pipeline"], facts["is_toolcall_model"], facts["digest"]) == ("yap-text-inference", True, "d")
    assert facts["perplexity"] == {"float": 10.0, "quantized": 10.5, "text": "some text"}


def test_a_hub_source_is_the_base_model() -> None:
    from dataclasses import replace

    text = card.model_card(replace(REPORT, hub_id="owner/m"), {"license": "mit"})
    assert "base_model: owner/m\nbase_model_relation: quantized" in text
