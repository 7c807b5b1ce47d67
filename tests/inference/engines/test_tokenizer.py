from __future__ import annotations

import pytest
from tokenizers.decoders import DecodeStream

from inference.engines.tokenizer import repeated_text
from tests.fakes.tokenizers import FAMILIES, family


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
