"""One quantization, in the quantizer's own environment: a job as JSON on stdin, the export in the folder it names.

    .venv-quantize/bin/python -m scripts.quantizer.worker <job.json

Progress is on stderr. Exit status 1 with one line on stderr where the model cannot be quantized.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.quantizer.progress import Progress
from scripts.quantizer.recipe import IGNORE, Calibration, QuantizeError


@dataclass(frozen=True, slots=True)
class Job:
    """What `prepare` asks of the worker. ``out`` does not exist yet; ``prompts`` are beginnings of chats."""

    source_model: str
    source_folder: str
    source_revision: str
    hub_id: str | None
    roles: list[str]
    digest: str
    out: str
    prompts: list[list[dict[str, str]]]
    calibration: dict[str, Any]
    versions: dict[str, str]
    threads: int | None = None


def calibration_texts(
    model: Any, tokenizer: Any, wished: Calibration, prompts: Sequence[Sequence[dict[str, str]]], progress: Progress
) -> list[list[int]]:
    """Return the calibration texts as token ids, no longer than the model's positions.

    Raises:
        QuantizeError: the data cannot be read or holds no text.
    """
    from scripts.quantizer.calibration import from_file, from_hub, written_by

    tokens = min(wished.tokens, getattr(model.config, "max_position_embeddings", None) or wished.tokens)
    if wished.kind == "self":
        progress.stage("the float model writes its calibration text")

        def written(done: int) -> None:
            progress.step("calibration text", done, len(prompts))

        texts: list[list[int]] = written_by(model, tokenizer, prompts, tokens, written)
        return texts
    progress.stage(f"reading the calibration data {wished.dataset}")
    if wished.kind == "file":
        return from_file(tokenizer, Path(wished.dataset).expanduser(), wished.samples, tokens)
    return from_hub(tokenizer, wished.dataset, wished.samples, tokens)


def run(job: Job) -> None:
    """Do the job.

    Raises:
        QuantizeError: the model cannot be quantized, or the export is broken.
    """
    progress = Progress(f"quantizing {job.hub_id or Path(job.source_model).name}")
    progress.stage("loading")
    import torch

    from scripts.quantizer import card, compress
    from scripts.quantizer.exports import size
    from scripts.quantizer.perplexity import TEXT, TOKENS, perplexity

    if job.threads:
        torch.set_num_threads(job.threads)
    wished = Calibration(**job.calibration)
    source, out = Path(job.source_folder), Path(job.out)
    model, tokenizer = compress.load(source, for_generation=True)
    layers = compress.quantized_layers(model)
    group = compress.group_size(list(layers.values()))
    texts = calibration_texts(model, tokenizer, wished, job.prompts, progress)
    progress.stage("perplexity of the float model")
    before = perplexity(model, tokenizer)

    if torch.accelerator.is_available():  # llm-compressor moves layer by layer from host memory
        del model
        gc.collect()
        model, tokenizer = compress.load(source, for_generation=False)
    progress.stage(f"AWQ, {len(layers)} layers in groups of {group}, {len(texts)} texts")
    total = getattr(model.config.get_text_config(), "num_hidden_layers", 0) + 1
    done = 0

    def on_layer() -> None:
        nonlocal done
        done += 1
        progress.step("layer", min(done, total), total)

    compress.compress(model, tokenizer, texts, group, on_layer)
    progress.stage("writing the export")
    compress.save(model, tokenizer, out)
    del model
    gc.collect()

    progress.stage("perplexity of the export")
    model, tokenizer = compress.load(out, for_generation=True)
    after = perplexity(model, tokenizer)
    if not after < float("inf"):
        raise QuantizeError(f"the export of {job.source_model} computes nothing usable (perplexity {after})")
    report = card.Report(
        source_model=job.source_model,
        source_revision=job.source_revision,
        hub_id=job.hub_id,
        roles=tuple(job.roles),
        digest=job.digest,
        group_size=group,
        ignore=IGNORE,
        calibration_kind=wished.kind,
        calibration_dataset=Path(wished.dataset).name if wished.kind == "file" else wished.dataset,
        calibration_samples=len(texts),
        calibration_tokens=sum(len(ids) for ids in texts),
        calibration_seqlen=wished.tokens,
        calibration_sha256=hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
        versions=job.versions,
        seconds=progress.seconds,
        bytes_before=size(source),
        bytes_after=size(out),
        perplexity_float=before,
        perplexity_quantized=after,
        perplexity_text=f"{TOKENS:,} tokens of {TEXT} of Python {sys.version_info.major}.{sys.version_info.minor}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    card.write(out, report, source)
    progress.stage(
        f"done: {report.bytes_before / 1e6:,.0f} MB → {report.bytes_after / 1e6:,.0f} MB, "
        f"perplexity {before:.2f} → {after:.2f}"
    )


def quiet() -> None:
    """Keep the libraries' own bars, banners and warnings out of the operator's terminal."""
    # llm-compressor logs beside the caller unless told otherwise, and loguru writes to stderr.
    os.environ |= {"TQDM_DISABLE": "1", "LLM_COMPRESSOR_LOG_DISABLED": "true", "TOKENIZERS_PARALLELISM": "false"}
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    from tqdm import tqdm

    shown = tqdm.__init__

    def hidden(self: Any, *arguments: Any, **options: Any) -> None:
        shown(
            self, *arguments, **{**options, "disable": True}
        )  # some bars ask for themselves whatever TQDM_DISABLE says

    tqdm.__init__ = hidden


def main() -> int:
    """Command line; returns the exit status."""
    quiet()
    job = Job(**json.load(sys.stdin))
    if job.calibration["dataset"] == "self" or Calibration(**job.calibration).kind == "file":
        os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        run(job)
    except QuantizeError as error:
        print(f"yap: {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError, RuntimeError, KeyError, MemoryError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        print(f"yap: {job.source_model} cannot be quantized: {type(error).__name__}: {reason[:300]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
