#!/bin/bash
# Workers as a Slurm job, one for each GPU; they serve the pool until the time limit:
#   sbatch --array=1-8 deploy/slurm/latentmill-worker.sh
# Settings and secrets are read from the file LATENTMILL_ENV_FILE, ~/.config/latentmill/latentmill.env by default.
#SBATCH --job-name=latentmill-worker
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=08:00:00
#SBATCH --requeue
# SIGTERM to all processes of the worker, this long before the time limit. Running shards finish or are released.
#SBATCH --signal=TERM@60

set -euo pipefail

env_file=${LATENTMILL_ENV_FILE:-$HOME/.config/latentmill/latentmill.env}
if [[ -r $env_file ]]; then
  set -a
  # shellcheck source=/dev/null
  . "$env_file"
  set +a
fi

# scancel and preemption kill KillWait seconds after SIGTERM (30 by default): leave some of them for the way out.
export LATENTMILL_GRACE_SECONDS=${LATENTMILL_GRACE_SECONDS:-15}
# File locks and heartbeats need a disk of this node.
node_dir=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/latentmill-$USER
export LATENTMILL_STATE_DIR=${LATENTMILL_STATE_DIR:-$node_dir/state-$SLURM_JOB_ID}
export LATENTMILL_CACHE_DIR=${LATENTMILL_CACHE_DIR:-$node_dir/bundles}
mkdir -p "$node_dir"
chmod 700 "$node_dir"

exec srun --kill-on-bad-exit=1 "${LATENTMILL_COMMAND:-latentmill}" worker "$@"
