#!/bin/bash
# A sweep on Slurm nodes:   sbatch docs/cluster/slurm.sh digits /shared/results/digits
# Sent again after a time limit or a lost node, it goes on where it stopped. /shared is seen by every node.
#SBATCH --job-name=routing
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

study=${1:?usage: sbatch slurm.sh STUDY RESULTS}
results=${2:?usage: sbatch slurm.sh STUDY RESULTS}
source "${VENV:-$HOME/routing-venv}/bin/activate"

# Slurm's TERM, two minutes before the time limit, stops the sweep cleanly; it may come while Ray is still starting
sweep=
trap 'if [ -n "$sweep" ]; then kill -TERM "$sweep"; else exit 143; fi' TERM

export RAY_AUTH_MODE=token RAY_worker_niceness=0 RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1
RAY_AUTH_TOKEN=$(openssl rand -hex 32)
export RAY_AUTH_TOKEN
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK" # since Slurm 22.05 a step has one CPU unless it asks for more

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 10000))
common=(--temp-dir="/tmp/ray-$SLURM_JOB_ID" --num-cpus="$SLURM_CPUS_PER_TASK" --block)

wait_for() { # until this many nodes have joined
  local joined
  for _ in {1..120}; do
    joined=$(ray status --address="$ip:$port" 2>/dev/null | grep -c ' node_' || true)
    [ "${joined:-0}" -ge "$1" ] && return
    sleep 1
  done
  echo "only ${joined:-0} of ${#nodes[@]} nodes have joined" >&2
}

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
  ray start --head --node-ip-address="$ip" --port="$port" --include-dashboard=false "${common[@]}" &
wait_for 1
for node in "${nodes[@]:1}"; do
  srun --nodes=1 --ntasks=1 --nodelist="$node" --overlap ray start --address="$ip:$port" "${common[@]}" &
done
wait_for "${#nodes[@]}" # as many trials run at once as the nodes that are there now have room for

# this script runs on the first node, the head; under srun, which kills its task when it gets a TERM, nothing stops cleanly
routing sweep "$study" --address "$ip:$port" --out "$results" --resume &
sweep=$!
code=0
wait "$sweep" || code=$?
if kill -0 "$sweep" 2>/dev/null; then # the signal ended the wait, not the sweep
  code=0
  wait "$sweep" || code=$?
fi
exit "$code"
