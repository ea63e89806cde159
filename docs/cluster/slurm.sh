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

export RAY_AUTH_MODE=token RAY_worker_niceness=0 RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1
RAY_AUTH_TOKEN=$(openssl rand -hex 32)
export RAY_AUTH_TOKEN

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 10000))
common=(--temp-dir="/tmp/ray-$SLURM_JOB_ID" --num-cpus="$SLURM_CPUS_PER_TASK" --block)

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
  ray start --head --node-ip-address="$ip" --port="$port" --include-dashboard=false "${common[@]}" &
sleep 15
for node in "${nodes[@]:1}"; do
  srun --nodes=1 --ntasks=1 --nodelist="$node" --overlap ray start --address="$ip:$port" "${common[@]}" &
done
sleep 15

# on the head's node, so that the driver is part of the cluster; Slurm's TERM stops it cleanly
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
  routing sweep "$study" --address "$ip:$port" --out "$results" --resume &
sweep=$!
trap 'kill -TERM "$sweep"' TERM
code=0
wait "$sweep" || code=$?
if kill -0 "$sweep" 2>/dev/null; then # the signal ended the wait, not the sweep
  code=0
  wait "$sweep" || code=$?
fi
exit "$code"
