#!/bin/bash
# A sweep as a job of a running cluster, code taken along:   docs/cluster/submit.sh digits /shared/results/digits
# Needs ray[default] here, the dashboard's address in RAY_API_SERVER_ADDRESS (http://127.0.0.1:8265 through an ssh
# tunnel) and the cluster's token in RAY_AUTH_TOKEN or ~/.ray/auth_token.
set -euo pipefail

study=${1:?usage: submit.sh STUDY RESULTS}
results=${2:?usage: submit.sh STUDY RESULTS}
export RAY_AUTH_MODE=token

exec ray job submit \
  --runtime-env "$(dirname "$0")/runtime_env.yaml" \
  --submission-id "routing-$(date +%Y%m%d-%H%M%S)" \
  -- python -m routing sweep "$study" --address auto --out "$results" --resume
