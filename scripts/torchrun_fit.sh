#!/usr/bin/env bash
# Starts this node's share of a training run over several nodes, with torchrun. Run it on every node:
#
#   NODES=2 NODE=0 MAIN=10.0.0.1 scripts/torchrun_fit.sh --config configs/cluster/lora_7b.yaml     (on 10.0.0.1)
#   NODES=2 NODE=1 MAIN=10.0.0.1 scripts/torchrun_fit.sh --config configs/cluster/lora_7b.yaml     (on the other)
#
# NODES    how many nodes there are
# NODE     which of them this is, from 0
# MAIN     address of node 0, as the others reach it
# PORT     free port on node 0 (default 29500)
# DEVICES  processes on this node, one per GPU (default: all its GPUs); the same on all nodes
# PYTHON   interpreter (default python)
#
# Ranks talk without a password: MAIN has to be an address of a network that is yours alone. Code, models, data and the
# folder of runs lie under the same paths on all nodes. When a node fails, end the others too, and start all again with
# --ckpt_path runs/NAME/version_K/checkpoints/last.ckpt.
set -euo pipefail

if [[ -z "${NODES:-}" || -z "${NODE:-}" || -z "${MAIN:-}" || $# -eq 0 ]]; then
    echo "usage: NODES=n NODE=i MAIN=address $0 --config FILE [options of racro-pl fit]" >&2
    exit 2
fi
devices=${DEVICES:-$(nvidia-smi --list-gpus | wc -l)}

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "$NODES" --node_rank "$NODE" --nproc_per_node "$devices" \
    --master_addr "$MAIN" --master_port "${PORT:-29500}" \
    -m racro_pl fit "$@" --trainer.num_nodes "$NODES" --trainer.devices "$devices"
