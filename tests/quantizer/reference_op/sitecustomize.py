"""For processors without AVX-512: vLLM's op for 4-bit weights in plain PyTorch, in every process of a test's server.

Everything but this one multiplication is vLLM's own code. The folder is on PYTHONPATH of the server that a test starts.
"""

import torch

from inference.engines import device

_flags = device.cpu_flags
if "avx512f" not in _flags():
    device.cpu_flags = lambda *arguments: _flags(*arguments) | {"avx512f"}
    library = torch.library.Library("_C", "FRAGMENT")
    library.define(
        "cpu_gemm_wna16(Tensor input, Tensor q_weight, Tensor! out, Tensor scales, Tensor? zeros, Tensor? bias, "
        "int pack_factor, str isa_hint) -> ()"
    )
    _dequantized: dict[int, torch.Tensor] = {}

    def _unpack(packed: torch.Tensor) -> torch.Tensor:
        """8 numbers of 4 bits out of each int32, along the last dimension."""
        shifts = torch.arange(0, 32, 4, dtype=torch.int32)
        return ((packed.unsqueeze(-1) >> shifts) & 0xF).flatten(-2)

    def _multiply(
        input: torch.Tensor, q_weight: torch.Tensor, out: torch.Tensor, scales: torch.Tensor,
        zeros: torch.Tensor | None, bias: torch.Tensor | None, pack_factor: int, isa_hint: str,
    ) -> None:  # fmt: skip
        key = q_weight.data_ptr()
        if key not in _dequantized:
            blocks, inputs = q_weight.shape[0], q_weight.shape[1] // 2
            packed = q_weight.view(blocks, inputs, 2).permute(1, 0, 2).reshape(inputs, blocks * 2)
            groups, outputs = scales.shape
            weights = _unpack(packed).view(groups, inputs // groups, outputs)
            zero = torch.full((groups, outputs), 8) if zeros is None else _unpack(zeros)
            _dequantized[key] = ((weights - zero[:, None]).float() * scales[:, None].float()).reshape(inputs, outputs)
        result = input.float() @ _dequantized[key]
        out.copy_(result if bias is None else result + bias.float())

    library.impl("cpu_gemm_wna16", _multiply, "CPU")
