"""Random 4-bit models of real sizes, quantised tensor by tensor where they will live: no copy in 16 bits ever exists.

Runs in the peer's environment too, without racro_pl.
"""

from __future__ import annotations

from typing import Any

import torch

VISION = "model.visual"


def build_quantised(config: Any, device: torch.device) -> Any:
    """A ``Qwen2_5_VLForConditionalGeneration`` with NF4 language layers; tower, embedding and head in bfloat16.

    It differs from what ``from_pretrained`` makes of a folder with such weights in nothing but their values.
    """
    import bitsandbytes as bnb
    from accelerate import init_empty_weights
    from transformers import BitsAndBytesConfig, Qwen2_5_VLForConditionalGeneration
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.utils.quantization_config import QuantizationMethod

    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    config.dtype = torch.bfloat16
    with init_empty_weights(include_buffers=False):
        model = Qwen2_5_VLForConditionalGeneration(config)
    replace_with_bnb_linear(model, ["lm_head", VISION, VISION.split(".")[-1]], settings)
    torch.manual_seed(0)
    for module in list(model.modules()):
        quantised = isinstance(module, bnb.nn.Linear4bit)
        if quantised:
            # Else the CPU's kernel repacks the weight on the way, and has no backward for it.
            module.support_avx512bf16_for_cpu = False
        for key, empty in list(module.named_parameters(recurse=False)):
            values = _values(key, empty.shape, device)
            if quantised and key == "weight":
                parameter = bnb.nn.Params4bit(
                    values, requires_grad=False, compress_statistics=True, quant_type="nf4", module=module
                ).to(device)
            else:
                parameter = torch.nn.Parameter(values, requires_grad=False)
            setattr(module, key, parameter)
        for key, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, key, buffer.to(device))
    model.tie_weights()
    # What from_pretrained leaves on a quantised model, for peft and for trainers.
    model.is_loaded_in_4bit = True
    model.quantization_method = QuantizationMethod.BITS_AND_BYTES
    return model.eval()


def _values(key: str, shape: torch.Size, device: torch.device) -> torch.Tensor:
    if key == "bias":
        return torch.zeros(shape, dtype=torch.bfloat16, device=device)
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16, device=device)
    return torch.randn(shape, dtype=torch.bfloat16, device=device).mul_(0.02)
