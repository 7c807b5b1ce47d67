"""``manage.py plan``: how many GPUs a model needs for a number of streams, and the variables to set."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from inference.engines import model_config
from inference.engines.device import GIB
from inference.engines.sizing import GPU_KINDS, RESERVE, size_engine
from inference.engines.spec import ModelRefused


class Command(BaseCommand):
    help = "Compute weights, KV cache and streams of one engine on GPUs. Memory only: throughput has to be measured."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--model", required=True, help="folder or Hub id")
        parser.add_argument("--gpu", required=True, choices=sorted(GPU_KINDS), help="the kind of GPU")
        parser.add_argument("--streams", type=int, required=True, help="conversations that talk at the same time")
        parser.add_argument("--role", choices=("chat", "tool"), default="chat", help="the engine")
        parser.add_argument("--context", type=int, help="tokens; CHAT_MAX_LEN or TOOL_MAX_LEN where it is not given")
        parser.add_argument("--fill", type=float, default=0.5, help="average length, a fraction of the context (0.5)")
        parser.add_argument("--share", type=float, default=0.9, help="the engine's share of each GPU (0.9)")
        parser.add_argument("--weights", type=float, help="GiB of the stored weights, for a Hub id")
        parser.add_argument("--kv-fp8", action="store_true", help="store the cache as fp8 (KV_DTYPE=fp8)")

    def handle(self, *args: Any, **options: Any) -> None:
        role = options["role"].upper()
        context = options["context"] or getattr(settings.ENV, f"{role}_MAX_LEN")
        if options["streams"] < 1 or context < 1 or not (0 < options["fill"] <= 1 and 0 < options["share"] <= 1):
            raise CommandError("--streams and --context are at least 1; --fill and --share lie between 0 and 1")
        gpu = GPU_KINDS[options["gpu"]]
        try:
            size = size_engine(
                model_config.read(options["model"]),
                gpu,
                streams=options["streams"],
                context=context,
                fill=options["fill"],
                fraction=options["share"],
                weight_bytes=None if options["weights"] is None else int(options["weights"] * GIB),
                kv_fp8=options["kv_fp8"],
            )
        except ModelRefused as refused:
            raise CommandError(str(refused)) from None
        lines = (
            ("weights", f"{size.weights / GIB:.2f} GiB"),
            ("KV cache", f"{size.kv_per_token / 1024:.1f} KiB per token, {size.kv_per_context / GIB:.3f} GiB per "
                         f"context of {context} tokens"),
            ("one replica", f"{size.tensor_parallel} x {options['gpu']} ({gpu.memory / GIB:.0f} GiB, "
                            f"share {options['share']:g}, {RESERVE / GIB:.0f} GiB reserve)"),
            ("its cache", f"{size.cache / GIB:.1f} GiB: {size.streams} streams of "
                          f"{options['fill'] * context:.0f} tokens"),
            (f"{options['streams']} streams", f"{size.replicas} replicas, {size.gpus} GPUs"),
            ("set", f"{role}_TENSOR_PARALLEL={size.tensor_parallel} {role}_DATA_PARALLEL={size.replicas} "
                    f"MAX_CONCURRENT_CONNECTIONS={options['streams']}"),
        )  # fmt: skip
        for name, value in lines:
            self.stdout.write(f"{name:<14} {value}")
        self.stdout.write("Memory only. Measure throughput: .venv/bin/python -m tests.benchmarks.serving")
