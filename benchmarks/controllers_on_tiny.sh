#!/usr/bin/env bash
# Every kind of controller on ATESD-Tiny-v0, eight seeds each: the runs behind docs/results/controllers.md.
# The students of the surrogate's data, of PPO's training and of its evaluations have seeds of their own (100.., 2^31..,
# 200..), so nothing is judged on what it was trained or chosen on. About an hour of one core.
#
#   bash benchmarks/controllers_on_tiny.sh [FOLDER]      (again after an interruption: it goes on)
set -euo pipefail
out=${1:-controllers}
export OMP_NUM_THREADS=1
mkdir -p "$out"

# A fast environment, fitted to logged runs, and PPO trained on it.
atesd compare --env ATESD-Tiny-v0 --agent random fixed:0 fixed:1 linear:0:1 linear:1:0 \
    --seeds 100 101 102 103 --out "$out/logged" --resume --quiet
atesd fit-surrogate "$out/logged" --out "$out/surrogate.safetensors"
atesd train --env ATESD-Surrogate-v0 --file "$out/surrogate.safetensors" --agent ppo --num-envs 16 \
    --total-windows 20000 --eval-seeds 200 201 202 203 204 205 206 207 --out "$out/train_ppo_surrogate" --resume --quiet

# PPO trained on the population of real students: 64 runs of 20 windows.
atesd train --env ATESD-Tiny-v0 --agent ppo --num-envs 8 \
    --total-windows 1280 --eval-every 320 --eval-seeds 200 201 202 203 --out "$out/train_ppo_population" --resume --quiet

# Of PPO on the surrogate both the agent with the best evaluation and the last one: it may learn what only the surrogate has.
cp "$out/train_ppo_surrogate/best_agent.zip" "$out/ppo_surrogate_best.zip"
cp "$out/train_ppo_surrogate/last_agent.zip" "$out/ppo_surrogate_last.zip"
cp "$out/train_ppo_population/last_agent.zip" "$out/ppo_population_last.zip"
atesd compare --env ATESD-Tiny-v0 --agent fixed:0 fixed:0.25 fixed:0.5 fixed:0.75 fixed:1 linear:0:1 linear:1:0 random \
    beta:credit=one-step beta:credit=delayed beta:credit=discounted beta:credit=grounded thompson \
    "$out/ppo_surrogate_best.zip" "$out/ppo_surrogate_last.zip" "$out/ppo_population_last.zip" \
    --trust-pickle --seeds 0 1 2 3 4 5 6 7 --out "$out/runs" --resume --quiet
