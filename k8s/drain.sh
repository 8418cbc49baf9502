#!/usr/bin/env bash
# a pod that is to end -> its Ray node drained: Serve puts replacements elsewhere, what runs here is finished, then the raylet ends
#   drain.sh SECONDS [AGENT]     # what runs here may take so long; the agent's HOST:PORT is closed when the raylet is gone
# A head that cannot be asked means that the cluster ends as a whole, or that it was lost: jobs go on elsewhere after their last step.
set -u
agent=${2:-127.0.0.1:52365}
patience=30

reaches() { timeout 2 bash -c "exec 3<>/dev/tcp/${1/://}" 2>/dev/null; }

timeout 60 ray drain-node --address "$RAY_ADDRESS" --reason DRAIN_NODE_REASON_PREEMPTION \
    --reason-message "the pod ends" --deadline-remaining-seconds "$1" || exit 0
alone=0
while reaches "$agent" && [ "$alone" -lt "$patience" ]; do
    if reaches "$RAY_ADDRESS"; then alone=0; else alone=$((alone + 1)); fi
    sleep 1
done
