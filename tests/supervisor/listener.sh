#!/bin/bash
# Stands in for bin/Runner.Listener. A test appends what this one does; here is what the real one does in every case.
[[ $1 == run && $# == 1 && -n ${ACTIONS_RUNNER_INPUT_JITCONFIG:-} ]] || { echo "started wrongly"; exit 1; }
unset ACTIONS_RUNNER_INPUT_JITCONFIG

interrupted=0
trap 'interrupted=1; echo "listener: interrupted"' INT
trap 'echo "listener: told to terminate"; exit 143' TERM

connect() {
  echo '√ Connected to GitHub'
  echo "Current runner version: '2.336.0'"
  echo '2026-01-02 03:04:05Z: Listening for Jobs'
}

# Waits until the supervisor interrupts it, as an idle listener does.
listen() {
  for ((i = 0; i < 400; i++)); do
    ((interrupted)) && return
    sleep 0.05
  done
  echo 'listener: nobody interrupted it'
  exit 99
}

# Starts a worker that lives for $1 seconds, or until the file `release` is there.
start_worker() {
  "$PWD/bin/Runner.Worker" spawnclient "$1" &
  worker=$!
}

# Waits for the worker, also when signals come meanwhile.
finish_worker() {
  while [[ -d /proc/$worker ]]; do wait "$worker"; done
}

run_job() {
  echo '2026-01-02 03:04:06Z: Running job: build'
  start_worker "$1"
  finish_worker
  echo '2026-01-02 03:04:07Z: Job build completed with result: Succeeded'
}
