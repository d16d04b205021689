#!/usr/bin/env bash
# Preprocess a cohort as a Slurm job array, then join the shards:
#   mkdir -p logs
#   job=$(sbatch --parsable --array=1-50 docs/preprocess_slurm.sh cohort.csv STORE)
#   sbatch --dependency=afterany:$job --wrap "python -m mri_jax merge STORE"
# Submitting the same lines again continues: what is done is skipped by its checksum.
#SBATCH --job-name=mri-jax-preprocess
#SBATCH --cpus-per-task=1
#SBATCH --mem=3G
#SBATCH --time=04:00:00
#SBATCH --output=logs/preprocess_%a.txt
set -euo pipefail
input=$1
store=$2
python -m mri_jax preprocess --input "$input" --out "$store" --grid paper \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
