#!/usr/bin/env bash
# All that ten minutes on one GPU should tell: is it right, does it learn, how fast is it, where does the time go.
#
#     bash scripts/gpu_minutes.sh OUT_FOLDER                    all stages, most valuable first, within 560 s
#     bash scripts/gpu_minutes.sh OUT_FOLDER --only step_7b     what is left, or has to be repeated (names: --list)
#     bash scripts/gpu_minutes.sh OUT_FOLDER --dry-run          tiny shapes on a CPU; its figures mean nothing
#
# Works on a machine without a network, from the source tree: wheels that scripts/pack_wheels.sh left in .whl/ are
# unpacked to a folder of their own first. PYTHON names the interpreter (default python3).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
site=${SITE:-/tmp/racro_site}
if compgen -G "$root/.whl/*.whl" >/dev/null && [[ ! -e $site/.done ]]; then
  "$python" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$site" "$root"/.whl/*.whl
  touch "$site/.done"
fi
export PYTHONPATH=$root:$site${PYTHONPATH:+:$PYTHONPATH}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True PYTHONWARNINGS=ignore
exec "$python" "$root/scripts/gpu_minutes/run.py" "$@"
