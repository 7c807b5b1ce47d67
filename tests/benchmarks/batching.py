"""Measures the effect of the step size (`max_num_batched_tokens`).

For each size: the wait of a warm client for its first token while other clients send long prompts, the wait of those
clients, and the gaps of running streams.

    python -m tests.benchmarks.batching [--model FOLDER|ID] [--tokens 256,512,1024,2048] [--others 8]

The servers run one after the other, twice through the list, so that a drift of the machine becomes visible.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks import models
from tests.benchmarks.engine import engine
from tests.benchmarks.figures import percentile
from tests.benchmarks.systems import Worker, yap

SHARES = (0.5, 0.99)


def measure(
    model: models.Model, sizes: Sequence[int], others: int, repeat: int, out: Path
) -> dict[int, list[list[float]]]:
    """Run all sizes.

    Returns:
        Per size: seconds to the first token of the warm client, of the other clients, and the gaps of the streams.
    """
    found: dict[int, list[list[float]]] = {size: [[], [], []] for size in sizes}
    for round_ in range(2):
        for size in sizes:
            shared = engine(
                model,
                slots=others + 8,
                reply_tokens=96,
                batched_tokens=size,
                engines=1,
                quantization="auto",
                light=model.tiny,
            )
            folder = out / f"{size} {round_}"
            clients = Worker("clients", folder / "logs" / "clients.log")
            system = yap("daphne", shared, clients, folder, places=others + 8, history=3000)
            try:
                clients.wait_ready()
                system.wait_ready()
                seed = f"batching {round_}"
                result = system.do("crowd", seed=seed, others=others, repeat=repeat, streams=4)
            finally:
                system.stop()
                clients.stop()
            for samples, name in zip(found[size], ("ttft", "others_ttft", "stream_gap"), strict=True):
                samples += result[name]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.batching", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", help="a folder or Hub id; default: a tiny random Llama")
    parser.add_argument("--tokens", default="256,512,1024,2048", help="sizes, comma-separated")
    parser.add_argument("--others", type=int, default=8, help="clients with long prompts")
    parser.add_argument("--repeat", type=int, default=10, help="crowds per engine")
    given = parser.parse_args()
    sizes = [int(size) for size in given.tokens.split(",")]
    with tempfile.TemporaryDirectory(prefix="batching-") as folder:
        model = models.find(given.model, Path(folder))
        found = measure(model, sizes, given.others, given.repeat, Path(folder))
    table = Table(title=f"{model.name}: {given.others} long prompts at once; ms, p50 / p99")
    for column in (
        "max_num_batched_tokens",
        "warm client's first token",
        "the others' first token",
        "gap of 4 streams",
    ):
        table.add_column(column, justify="right")
    for size, samples in found.items():
        shown = [" / ".join(f"{1000 * percentile(each, share):.1f}" for share in SHARES) for each in samples]
        table.add_row(str(size), *shown)
    Console().print(table)


if __name__ == "__main__":
    main()
