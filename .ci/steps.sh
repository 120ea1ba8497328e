# Sourced by the scripts here: runs named steps one after another, with the time each took, and sums up at the end.
# A failed step does not keep the later ones from running, so that one run shows all that is wrong.
# shellcheck shell=bash

failed_steps=()
times=()

# Runs the command after the name $1 as one step.
step() {
  local name=$1 started=$SECONDS result=ok
  shift
  printf '\n=== %s: %s\n' "$name" "$*"
  if ! "$@"; then
    result=FAILED
    failed_steps+=("$name")
  fi
  times+=("$name $((SECONDS - started)) s")
  printf '=== %s: %s (%d s)\n' "$name" "$result" "$((SECONDS - started))"
}

# Prints the sum and ends the script.
finish() {
  printf '\ntimes:'
  printf ' %s;' "${times[@]}"
  printf '\n'
  if ((${#failed_steps[@]} == 0)); then
    printf 'all steps passed (%d s)\n' "$SECONDS"
    exit 0
  fi
  printf 'failed (%d s):' "$SECONDS"
  printf ' %s;' "${failed_steps[@]}"
  printf '\n'
  exit 1
}

# Installs the Debian package $1 if this machine lets us; whether it is there is for the caller to find out.
try_install() {
  [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null || return 0
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1" >/dev/null 2>&1 && return 0
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1"; } >/dev/null 2>&1 || true
}

# Installs version $2 of cargo's subcommand $1, from source, unless it is there.
cargo_tool() {
  [[ "$(cargo "${1#cargo-}" --version 2>/dev/null)" == *"$2" ]] || cargo install "$1" --version "$2" --locked
}
