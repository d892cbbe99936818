#!/bin/bash
# One soup on several machines: sbatch configs/slurm.sh greedy --ckpts runs/*/ --val imagenet-val --out soup/
#
# Needs: soup.yaml in the folder where it is submitted, checkpoints and data on a file system that all nodes see, and
# `soup` on the PATH of the nodes. Expect what one process gives: the same members, scores and bytes, sooner.
# Words after the script go to soup (rank, greedy, learned or eval). Set nodes and GPUs below, or on sbatch's own line:
# sbatch --nodes 4 --gpus-per-node 8 configs/slurm.sh rank ...
#SBATCH --job-name=soup
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=02:00:00
#SBATCH --signal=TERM@120
set -euo pipefail

# One launcher on each node starts one process for each of its GPUs. All meet at the first node.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
per_node=${SLURM_GPUS_ON_NODE:-${SOUP_PROCESSES_PER_NODE:-1}}
port=$((20000 + SLURM_JOB_ID % 20000))

# Scores are kept where the next job finds them: an interrupted soup goes on.
export SOUP_CACHE=${SOUP_CACHE:-$PWD/.soup-cache}

exec srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$per_node" \
    --rdzv-backend c10d --rdzv-endpoint "$first:$port" --rdzv-id "$SLURM_JOB_ID" \
    -m soupcli "$@"
