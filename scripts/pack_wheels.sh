#!/usr/bin/env bash
# Collect in .whl/ what a GPU machine lacks that has Python 3.12, torch 2.11.0+cu130 and torchvision, transformers 5.17.0,
# lightning, pytest and their needs, and no network.
#
#     bash scripts/pack_wheels.sh           what the package and its tests need there
#     bash scripts/pack_wheels.sh --peer    TRL and datasets too, which scripts/gpu_minutes.sh times beside us
#
# Take the working tree and .whl/ along; scripts/gpu_minutes.sh installs them there. torch stays the machine's own: the
# package is run from its source, where no lower bound of pyproject.toml is asked for. On a machine that reads weights of
# strangers that would be a risk (pyproject.toml says which); here all weights are made on the spot.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${WHEELS:-$root/.whl}
python=${PYTHON:-python3}
limit_mib=64                    # of the working tree and the wheels together
wanted=(
  transformers==5.20.2          # 5.17 ignores the image features that are passed to it
  peft==0.21.2                  # below 0.20 an adapter's configuration can name a module to import
  bitsandbytes==0.50.2
  pillow==13.0.0
  jsonargparse==4.53.0 docstring_parser==0.18.0 typeshed_client==2.15.0 importlib_resources==7.1.0  # jsonargparse[signatures]
  math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2
  httpx==0.28.1 starlette==1.0.0 uvicorn==0.35.0
  beartype==0.23.1 pytest-timeout==2.4.0
)
if [[ ${1:-} == --peer ]]; then
  wanted+=(trl==1.16.0 datasets==5.2.0 xxhash==4.1.0 "dill<0.4.2" "multiprocess<0.70.20")
fi
rm -rf "$folder"
mkdir -p "$folder"
platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux1; do
  platforms+=(--platform "${tag}_x86_64")
done
"$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" \
  -d "$folder" "${wanted[@]}"

# bitsandbytes brings libraries for a dozen versions of CUDA, ROCm and XPU: those for the CPU and for CUDA 13.0 stay.
"$python" - "$folder" <<'PY'
import re
import sys
import zipfile
from pathlib import Path

KEPT = {"libbitsandbytes_cpu.so", "libbitsandbytes_cuda130.so"}
LIBRARY = re.compile(r"bitsandbytes/(libbitsandbytes_\w+\.so)")


def stays(path: str) -> bool:
    found = LIBRARY.fullmatch(path)
    return found is None or found[1] in KEPT


[wheel] = Path(sys.argv[1]).glob("bitsandbytes-*.whl")
small = wheel.with_suffix(".small")
with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
    there = {found[1] for found in map(LIBRARY.fullmatch, source.namelist()) if found}
    if not there >= KEPT:
        raise SystemExit(f"{wheel.name} has no {', '.join(sorted(KEPT - there))}")
    for name in filter(stays, source.namelist()):
        content = source.read(name)
        if name.endswith("RECORD"):
            content = b"".join(x for x in content.splitlines(True) if stays(x.decode().split(",")[0]))
        target.writestr(source.getinfo(name), content, zipfile.ZIP_DEFLATED, 9)
small.replace(wheel)
PY

wheels=$(du -cb "$folder"/* | awk 'END {print $1}')
tree=$(cd "$root" && git ls-files -z --cached --others --exclude-standard | xargs -0 du -cb 2>/dev/null | awk '/total$/ {sum += $1} END {print sum}')
ls -l "$folder" | awk 'NR > 1 {printf "%9d %s\n", $5, $9}'
awk -v w="$wheels" -v t="$tree" -v limit="$limit_mib" 'BEGIN {
  printf "wheels %.1f MiB, working tree %.1f MiB\n", w / 2^20, t / 2^20
  if ((w + t) / 2^20 > limit) { printf "together over %d MiB\n", limit > "/dev/stderr"; exit 1 }
}'
