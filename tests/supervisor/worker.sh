#!/bin/bash
# Stands in for bin/Runner.Worker: runs one step until the seconds in its second argument are over or `release` is there.
# shellcheck disable=SC2016 # the step expands these itself
bash -c '
  echo "worker: $PPID step: $$"
  for ((i = 0; i < 20 * $1; i++)); do
    [[ -e release ]] && break
    sleep 0.05
  done
' step "$2"
touch finished
