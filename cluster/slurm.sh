#!/bin/bash
# rayclip on Slurm: one job starts a Ray cluster on its nodes and runs rayclip on it.
#
#   sbatch cluster/slurm.sh --file-with-video-paths videos.txt --output-path /shared/features
#
# Arguments after the name of this script are passed to `rayclip extract`. Every node must see the
# videos, the list and the output. To resume an interrupted job, submit the same command again.

#SBATCH --job-name=rayclip
#SBATCH --output=rayclip-%j.log
#SBATCH --time=24:00:00
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
# Allocate whole nodes: Ray counts the cores and memory of a machine, not those of a job.
#SBATCH --exclusive
#SBATCH --mem=0
# After a preemption or a node failure, the job restarts and resumes.
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail

# If rayclip is not in the PATH from which you submit, activate an environment on shared storage:
# source /shared/rayclip/bin/activate

# Without a token, everybody who can reach these nodes could run code as you.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')

# Do not share /tmp/ray with earlier jobs on the same node.
export RAY_TMPDIR=/tmp/rayclip-$SLURM_JOB_ID

nodes=$SLURM_JOB_NUM_NODES
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) # the node that runs this script
ip=$(python -c 'import ray; print(ray.util.get_node_ip_address())') # the address that Ray uses
port=$((20000 + SLURM_JOB_ID % 10000))

export SLURM_CPU_BIND=none # one task per node uses all cores

finish() {
    set +e # some jobs may have ended already
    jobs -p | xargs --no-run-if-empty kill
    wait
    srun --overlap --ntasks="$nodes" rm -rf "$RAY_TMPDIR"
}
trap finish EXIT

srun --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --port="$port" --include-dashboard=false --disable-usage-stats --block &
if ((nodes > 1)); then
    srun --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) --exclude="$head" \
        ray start --address="$ip:$port" --block &
fi

# Wait for all nodes, so that rayclip starts with all GPUs.
all_nodes_joined() {
    python -c "import ray; ray.init('$ip:$port'); exit(len(ray.nodes()) < $nodes)" &>/dev/null
}
until all_nodes_joined; do
    ((SECONDS < 300)) || { echo "Not all of the $nodes nodes joined within 300 s." >&2 && exit 1; }
    sleep 2
done

rayclip extract --address "$ip:$port" --on-extraction save_numpy "$@"
