#!/usr/bin/env bash
# The wheel as users get it: built, installed beside the dependencies of .venv, and run in an empty folder, so that what is
# missing in it (a module, an asset, a configuration) shows.
#
#   scripts/check_wheel.sh            PYTHON names the interpreter with the dependencies (default .venv/bin/python)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
place=$(mktemp -d)
server=
trap '[[ -z $server ]] || kill "$server" 2>/dev/null || true; rm -rf "$place"' EXIT

"$python" -m pip wheel --quiet --no-deps --wheel-dir "$place/dist" "$root"
"$python" -m pip install --quiet --no-deps --target "$place/installed" "$place"/dist/racro_pl-*.whl
export PYTHONPATH=$place/installed OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
mkdir "$place/empty"
cd "$place/empty"
racro() { printf '\n$ racro-pl %s\n' "$*"; "$python" -m racro_pl "$@"; }

imported=$("$python" -c "import racro_pl; print(racro_pl.__file__)")
[[ $imported == "$place/installed/"* ]] || { echo "imported $imported, not the wheel's racro_pl" >&2; exit 1; }

racro fit --config quickstart --trainer.max_steps 2 --trainer.val_check_interval 2 \
  --data.reader.init_args.train 32 --data.reader.init_args.validation 4 --data.reader.init_args.test 4 \
  --trainer.callbacks.init_args.questions 4
[[ -s runs/quickstart/version_0/adapter/adapter_model.safetensors ]]
racro test --config test_figures --benchmarks figures --modes "[caption]" --limit 32
"$python" - <<'PYTHON'
from racro_pl.figure_world.world import figure_questions
open("figure.png", "wb").write(figure_questions("test", 1, 0)[0].images[0].data)
PYTHON
racro ask figure.png "what is the color of square ?" --captioner runs/quickstart/version_0
racro init quickstart
[[ -s quickstart.yaml && -s racro-pl.schema.json ]]

printf '\n$ racro-pl serve pipeline\n'
port=$((20000 + RANDOM % 12000))  # not one that the system gives to outgoing connections
"$python" -m racro_pl serve pipeline --port "$port" >serve.log 2>&1 &
server=$!
for _ in $(seq 240); do
  url=$(grep -oE 'http://127\.0\.0\.1:[0-9]+' serve.log | head -n 1 || true)
  [[ -n $url ]] && "$python" -c "import sys, urllib.request as u; u.urlopen(sys.argv[1] + '/health', timeout=5)" "$url" \
    2>/dev/null && break
  kill -0 "$server" 2>/dev/null || { cat serve.log >&2; exit 1; }
  sleep 0.5
done
"$python" -c "import sys, urllib.request as u; print(u.urlopen(sys.argv[1] + '/health', timeout=5).read())" "$url"
kill -TERM "$server"
code=0
wait "$server" || code=$?
[[ $code == 0 || $code == 143 ]] || { cat serve.log >&2; exit 1; }  # 143: ended by the signal, after its requests
server=
echo "the wheel holds what it needs"
