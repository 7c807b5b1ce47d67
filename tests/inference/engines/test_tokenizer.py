from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tokenizers import decoders, normalizers
from tokenizers.decoders import DecodeStream

from inference.engines.spec import ModelRefused
from inference.engines.tokenizer import PROBES, load_tokenizer, lost_text, read_tokenizer, repeated_text
from tests.fakes.engine import tiny_tokenizer
from tests.fakes.tokenizers import FAMILIES, family
from tests.real_tokenizers import FOLDER, NAMES


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("character", ["🦜", "é", "漢", "a"])
@pytest.mark.parametrize("before", ["You are Anna. Hello there", "", "ends with \N{REPLACEMENT CHARACTER}"])
def test_a_primed_detokenizer_repeats_nothing_else(name: str, character: str, before: str) -> None:
    tokenizer = family(name)
    start = [*tokenizer.all_special_ids[:1], *tokenizer.encode(before, add_special_tokens=False)]
    whole = tokenizer.encode(before + character, add_special_tokens=False)
    whole = [*tokenizer.all_special_ids[:1], *whole]
    for cut in range(max(1, len(start) - 1), len(whole) + 1):
        prompt, rest = whole[:cut], [*whole[cut:], *tokenizer.encode("ok", add_special_tokens=False)]
        stream = DecodeStream(ids=prompt, skip_special_tokens=True)
        texts = [text for token in rest if (text := stream.step(tokenizer.backend_tokenizer, token))]
        said = "".join([texts[0].removeprefix(repeated_text(tokenizer, prompt)), *texts[1:]])
        assert "Anna" not in said
        assert said.strip().endswith("ok")


# -- a start-up probe ------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_real_tokenizers_give_text_back_or_are_repaired(name: str, caplog: pytest.LogCaptureFixture) -> None:
    loaded = read_tokenizer(str(FOLDER / name))
    assert lost_text(loaded.tokenizer) is None
    # transformers 5 builds DeepSeek's LlamaTokenizerFast without the pre-tokenizer of its tokenizer.json.
    assert loaded.repaired == (name == "deepseek_v3")
    lines = [record.message for record in caplog.records if "loses text" in record.message]
    assert len(lines) == loaded.repaired
    assert all("LlamaTokenizer" in line and "\n" not in line for line in lines)


@pytest.mark.thorough
def test_a_repaired_tokenizer_is_written_for_the_engine(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    read_tokenizer(str(FOLDER / "deepseek_v3")).save(str(tmp_path))
    again = AutoTokenizer.from_pretrained(str(tmp_path))
    assert lost_text(again) is None
    assert again.chat_template == read_tokenizer(str(FOLDER / "deepseek_v3")).tokenizer.chat_template


@pytest.mark.thorough
def test_a_tokenizer_that_loses_text_for_good_is_refused(tmp_path: Path) -> None:
    broken = tiny_tokenizer().__class__.from_pretrained(_saved(tmp_path))
    broken.backend_tokenizer.normalizer = normalizers.Replace("\n", "")
    broken.save_pretrained(tmp_path)
    with pytest.raises(ModelRefused, match=r"loses text: 'line one\\nline two.*comes back as 'line oneline two"):
        read_tokenizer(str(tmp_path))
    broken.backend_tokenizer.normalizer = normalizers.Lowercase()
    broken.backend_tokenizer.decoder = decoders.ByteLevel()
    broken.save_pretrained(tmp_path)
    with pytest.raises(ModelRefused, match="loses text: 'Übergröße"):
        read_tokenizer(str(tmp_path))


def test_the_probes_hold_every_kind_of_text() -> None:
    for kind in ("\n", "\n\n\n", "  ", "\t", "ö", "你", "🦜", "<b>", "</b>"):
        assert any(kind in probe for probe in PROBES)


def _saved(folder: Path) -> str:
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


# -- a template of one's own -----------------------------------------------------------------------


@pytest.mark.thorough
def test_a_file_replaces_the_models_template(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    file = tmp_path / "own.jinja"
    file.write_text("{% for m in messages %}{{ m.content }}|{% endfor %}", encoding="utf-8")
    model = _saved(tmp_path / "model")
    assert read_tokenizer(model, file).tokenizer.chat_template == file.read_text(encoding="utf-8")
    assert load_tokenizer(model).chat_template == tiny_tokenizer().chat_template
    assert not caplog.records


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "cannot be read: No such file"), (b"", "is empty"), (b"\xff\xfe", "not UTF-8"), (b"x" * 2**21, "larger")],
)
def test_a_template_file_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "own.jinja"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelRefused, match=f"own.jinja.*{reason}"):
        read_tokenizer(_saved(tmp_path / "model"), file)
