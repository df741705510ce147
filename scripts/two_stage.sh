#!/usr/bin/env bash
# The paper's two-stage recipe on the figure world: question answering, then captions for a reasoner from there on.
#   scripts/two_stage.sh [STEPS_OF_STAGE_1] [STEPS_OF_STAGE_2] [further options of both fits]
# Every stage writes runs/two_stage_qa/ and runs/two_stage_cro/, with held-out accuracies in held_out.json.
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
first="${1:-60}"
second="${2:-80}"
shift $(($# < 2 ? $# : 2))
fit() { "${PYTHON:-python}" -m racro_pl fit "$@"; }
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"

fit --config "$here/configs/quickstart_qa.yaml" --name two_stage_qa --trainer.max_steps "$first" "$@"
# The newest finished version of stage one: its adapter is what stage two starts from, and is held near.
fit --config "$here/configs/quickstart.yaml" --name two_stage_cro --trainer.max_steps "$second" \
  --model.policy.adapter runs/two_stage_qa "$@"
