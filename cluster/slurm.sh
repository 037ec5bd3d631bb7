#!/bin/bash
# rayclip on Slurm: a Ray that lives as long as one job, on the nodes of that job.
#
#   sbatch cluster/slurm.sh --file-with-video-paths videos.txt --output-path /shared/features
#
# What follows the name of this script goes to `rayclip extract`. Videos, list and output must be
# where every node sees them. The same line again goes on where a job was ended.

#SBATCH --job-name=rayclip
#SBATCH --output=rayclip-%j.log
#SBATCH --time=24:00:00
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
# Whole nodes: Ray counts the cores and the memory of a machine, not those of a job.
#SBATCH --exclusive
#SBATCH --mem=0
# After a preemption, or when a node fails, the job begins again, and goes on.
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail

# Where rayclip is not in the PATH from which you submit: a virtual environment on shared storage.
# source /shared/rayclip/bin/activate

# Else everybody who can reach these nodes could run code here, as you.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')

# Jobs that follow one another on a node must not meet what others left in /tmp/ray.
export RAY_TMPDIR=/tmp/rayclip-$SLURM_JOB_ID

nodes=$SLURM_JOB_NUM_NODES
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) # this script runs there
ip=$(python -c 'import ray; print(ray.util.get_node_ip_address())') # as Ray sees itself
port=$((20000 + SLURM_JOB_ID % 10000))

export SLURM_CPU_BIND=none # a Ray node is one task, on all cores

finish() {
    set +e # whatever has ended already
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

# rayclip starts an encoder for each GPU that is there when it begins: wait for all nodes.
all_here() {
    python -c "import ray; ray.init('$ip:$port'); exit(len(ray.nodes()) < $nodes)" &>/dev/null
}
until all_here; do
    ((SECONDS < 300)) || { echo "Not all of the $nodes nodes came up in 300 s." >&2 && exit 1; }
    sleep 2
done

rayclip extract --address "$ip:$port" --on-extraction save_numpy "$@"
