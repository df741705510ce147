"""The figure world's captioner, merged, as GGUF files, by llama.cpp's own converter.

    racro-pl export runs/quickstart merged --merge --dtype float32
    python scripts/figure_gguf.py LLAMA_CPP merged OUT [--outtype f32|q8_0]

LLAMA_CPP is a folder with llama.cpp's sources (docs/other_engines.md says where from). The converter knows published
models; this one is so small that three of its assumptions fail, and are put right here. A captioner trained from
published weights needs none of this: call ``convert_hf_to_gguf.py`` itself.
"""

import argparse
import runpy
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--outtype", default="f32", choices=("f32", "q8_0"))
    options = parser.parse_args()
    converter = options.llama_cpp / "convert_hf_to_gguf.py"
    if not converter.is_file():
        sys.exit(f"{converter} is not there; expected llama.cpp's sources")
    sys.path[:0] = [str(options.llama_cpp / "gguf-py"), str(options.llama_cpp)]
    allow_small_model()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, more in (("captioner", []), ("mmproj", ["--mmproj"])):
        file = options.out / f"{name}-{options.outtype}.gguf"
        sys.argv = [str(converter), str(options.model), "--outfile", str(file), "--outtype", options.outtype, *more]
        runpy.run_path(str(converter), run_name="__main__")


def allow_small_model() -> None:
    """Change what the converter assumes, before it runs."""
    import gguf
    from conversion import base

    # Pre-tokenizers are told by a hash of published tokenizers; this one splits as GPT-2's does.
    base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
    # Names of tensors are made up to the number of vision layers (2), while the merger's second layer is called 2.
    names = gguf.get_tensor_name_map
    gguf.get_tensor_name_map = lambda architecture, blocks: names(architecture, max(blocks, 3))
    # Every vision layer attends to all patches; with a pattern of 1 llama.cpp misses a mask that no layer reads.
    pattern = gguf.GGUFWriter.add_vision_n_wa_pattern
    gguf.GGUFWriter.add_vision_n_wa_pattern = lambda self, value: pattern(self, 0 if value == 1 else value)


if __name__ == "__main__":
    main()
