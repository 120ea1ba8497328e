#!/bin/bash
# The first process of a sandbox: `bash -c "$THIS_TEXT"`. It starts the runner's listener, ends it when no job comes,
# and says by its exit code why the sandbox ended. It needs bash 4.4 and coreutils, nothing else.
# It never restarts the listener (a just-in-time config works once) and never kills it while a job runs.
set -u

# /proc/PID/environ shows what a process was started with, whatever it has unset since. So the config goes into a pipe
# and this process starts itself once more without it. Not a here-string: older bash puts those into a file.
start_again() {
  local +x default_interrupt=(env --default-signal=INT)
  exec 3< <(printf '%s' "$SANDRUNNER_JITCONFIG")
  unset SANDRUNNER_JITCONFIG
  # Where SIGINT was ignored from the start, no shell can undo it, and the listener could not be asked to end.
  "${default_interrupt[@]}" true 2>/dev/null || default_interrupt=() # coreutils before 8.31
  SANDRUNNER_CONFIG_PIPE=3 exec "${default_interrupt[@]}" "$BASH" -c "$BASH_EXECUTION_STRING"
}

main() {
  # Local and marked as not exported: otherwise a variable of the same name that the job is meant to get would be
  # changed here, or carry the config along.
  local +x config runner_dir repositories trusted_only setup_info docker user idle_limit start_limit stop_grace private listener
  local +x marks as_user=() connected_at=-1 job=0 deprecated=0 removed=0 signal='' ending='' asked_at=0 harder=TERM code why
  local +x SERVED=0 UNCLAIMED=64 VERSION_REFUSED=65 REGISTRATION_FAILED=66 POLICY_REFUSED=67 CRASHED=68 STOPPED=69
  read_settings
  prepare
  trap 'signal=SIGTERM' TERM
  trap 'signal=SIGINT' INT
  SECONDS=0
  start_docker
  start_listener
  follow_listener
  wait "$listener"
  code=$?
  while worker_exists; do # a worker finishes its job without the listener too
    job=1
    sleep 1
  done
  why=$(reason)
  say "the listener ended with code $code, this sandbox with $why"
  rm -rf "$private"
  exit "$why"
}

say() { printf 'sandrunner: %s\n' "$*"; }

give_up() {
  say "$1"
  exit "$REGISTRATION_FAILED"
}

# Takes the config from the pipe and the settings from the environment, where a job then finds neither.
read_settings() {
  [[ -n ${SANDRUNNER_CONFIG_PIPE:-} ]] || give_up 'SANDRUNNER_JITCONFIG is empty'
  IFS= read -r -d '' config <&3
  exec 3<&-
  idle_limit=$(seconds SANDRUNNER_IDLE_TIMEOUT_SECS 300) || give_up 'SANDRUNNER_IDLE_TIMEOUT_SECS is no number of seconds'
  start_limit=$(seconds SANDRUNNER_START_TIMEOUT_SECS 180) || give_up 'SANDRUNNER_START_TIMEOUT_SECS is no number of seconds'
  stop_grace=$(seconds SANDRUNNER_STOP_GRACE_SECS 30) || give_up 'SANDRUNNER_STOP_GRACE_SECS is no number of seconds'
  runner_dir=${SANDRUNNER_RUNNER_DIR:-/opt/actions-runner}
  repositories=${SANDRUNNER_REPOSITORIES:-}
  trusted_only=${SANDRUNNER_TRUSTED_ONLY:-0}
  setup_info=${SANDRUNNER_SETUP_INFO:-}
  docker=${SANDRUNNER_DOCKER:-}
  user=${SANDRUNNER_RUN_AS:-}
  unset "${!SANDRUNNER_@}"
  local entry='!?[A-Za-z0-9._-]+/[A-Za-z0-9._*-]+'
  [[ $repositories =~ ^$entry(\ $entry)*$ ]] ||
    give_up 'SANDRUNNER_REPOSITORIES does not hold owner/name or owner/prefix-* with spaces between them'
  [[ $trusted_only == [01] ]] || give_up 'SANDRUNNER_TRUSTED_ONLY is neither 0 nor 1'
  [[ $docker =~ ^(gvisor|vm)?$ ]] || give_up 'SANDRUNNER_DOCKER is neither gvisor nor vm'
  [[ $user =~ ^([a-z_][a-z0-9_-]*)?$ ]] || give_up 'SANDRUNNER_RUN_AS is no name of a user'
}

# Prints a number of seconds from variable $1, or the default $2. Checked, because bash evaluates what it computes with.
seconds() {
  local value=${!1:-$2}
  [[ $value =~ ^[0-9]{1,6}$ ]] && printf '%d' "$((10#$value))"
}

# Enters the runner's folder, and makes the hook and the pipe in a folder that no checkout can reach.
prepare() {
  cd "$runner_dir" || give_up "there is no runner in $runner_dir"
  runner_dir=$PWD
  private=$(mktemp -d) || give_up 'cannot make a temporary folder'
  marks=$private/marks
  mkdir -m 700 "$marks" || give_up 'cannot make a temporary folder'
  hook >"$private/job-started.sh" || give_up 'cannot write the job-started hook'
  chmod 500 "$private/job-started.sh"
  change_user
  # Open for reading and writing, so that neither side waits for the other and no end of file comes from either.
  { mkfifo "$private/output" && exec 4<>"$private/output"; } || give_up 'cannot make a pipe for the listener'
  if [[ -n $setup_info ]]; then
    local region=${MODAL_REGION:-} # set by Modal; kept to what needs no escaping in JSON
    region=${region//[^A-Za-z0-9._-]/}
    printf '%s' "${setup_info//'{region}'/"${region:-not told}"}" >.setup_info || say 'cannot write .setup_info, the job will not show its machine'
  fi
}

# Where jobs are not to run as root: the listener, and with it the job, gets another user. It reads the hook and leaves its
# marks; what else is in the private folder stays out of its reach. By setpriv, which becomes the listener: su would stand
# between it and our signals.
change_user() {
  [[ -n $user ]] || return 0
  local uid gid home
  { uid=$(id -u "$user" 2>/dev/null) && gid=$(id -g "$user" 2>/dev/null); } ||
    give_up "there is no user $user in the image: add it, or set run_as_root = true for the class"
  command -v setpriv >/dev/null ||
    give_up "there is no setpriv (util-linux) in the image, by which jobs run as $user: add it, or set run_as_root = true"
  home=$(getent passwd "$user" 2>/dev/null | cut -d: -f6)
  as_user=(setpriv "--reuid=$uid" "--regid=$gid" --init-groups -- env "HOME=${home:-/home/$user}" "USER=$user" "LOGNAME=$user")
  { chmod 711 "$private" && chmod 555 "$private/job-started.sh" && chown "$uid:$gid" "$marks"; } ||
    give_up "cannot hand the marks of a job to $user"
  "${as_user[@]}" test -w "$runner_dir" ||
    give_up "$user cannot write to $runner_dir, where the runner keeps its files: chown it in the image, or set run_as_root = true"
}

# Starts Docker's daemon where jobs are to find it, and waits until it answers; what that takes counts as part of the
# start. gVisor has no bridges and no firewall for it (Modal docs: Docker in sandboxes).
start_docker() {
  [[ -n $docker ]] || return 0
  command -v dockerd >/dev/null || give_up 'there is no dockerd in the image'
  local daemon options=()
  if [[ $docker == gvisor ]]; then
    options=(--iptables=false --ip6tables=false)
    update-alternatives --set iptables /usr/sbin/iptables-legacy >/dev/null 2>&1
  fi
  dockerd "${options[@]}" </dev/null >"$private/dockerd.log" 2>&1 4>&- &
  daemon=$!
  # A daemon that hangs may have its client wait for ever.
  until timeout 5 docker info >/dev/null 2>&1 4>&-; do
    if [[ -n $signal ]]; then
      say "received $signal"
      exit "$STOPPED"
    fi
    if [[ ! -d /proc/$daemon ]] || ((SECONDS >= start_limit)); then
      tail -n 20 "$private/dockerd.log"
      give_up 'dockerd does not answer; its last lines are above'
    fi
    sleep 0.2
  done
  say "dockerd answers after $SECONDS s"
}

# Starts the listener, the only process that gets the config. Not through run.sh, which hides exit codes.
start_listener() {
  set -m # with job control a background process does not ignore SIGINT
  ACTIONS_RUNNER_INPUT_JITCONFIG=$config ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=1 RUNNER_ALLOW_RUNASROOT=1 \
    ACTIONS_RUNNER_HOOK_JOB_STARTED=$private/job-started.sh "${as_user[@]}" bin/Runner.Listener run \
    </dev/null >&4 2>&1 4>&- &
  listener=$!
  set +m
  unset config
}

# Passes the listener's output on, line by line, and keeps the limits until it has ended and all is read.
follow_listener() {
  local alive line unfinished=''
  while :; do
    [[ -d /proc/$listener ]] && alive=1 || alive=0 # looked at before reading, so that the last lines are read
    if IFS= read -r -t 0.2 -u 4 line; then
      take_note "$unfinished$line"
      unfinished=''
      continue # the limits wait until all that was printed has been read
    fi
    unfinished+=$line
    ((alive)) || break
    keep_limits
  done
  [[ -z $unfinished ]] || take_note "$unfinished"
}

# Takes note of what a line of the listener's output says.
take_note() {
  printf '%s\n' "$1"
  case $1 in
    *'Running job: '*) job=1 ;;
    *'Connected to GitHub'* | *'Listening for Jobs'*) ((connected_at < 0)) && connected_at=$SECONDS ;;
    *'is deprecated and cannot receive messages'*) deprecated=1 ;;
    *'The runner no longer exists on the server'* | *'Registration '*' was not found'*) removed=1 ;;
  esac
}

# Looks at the clock, and at whether this process was asked to end.
keep_limits() {
  if [[ -n $ending ]]; then
    ((SECONDS - asked_at < stop_grace)) || insist
  elif [[ -n $signal ]]; then
    stop_listener "received $signal" signal
  elif ((job)); then
    return
  elif ((connected_at < 0)); then
    ((SECONDS < start_limit)) || job_started || stop_listener "not connected within $start_limit s" start
  else
    ((SECONDS - connected_at < idle_limit)) || job_started || stop_listener "no job within $idle_limit s" idle
  fi
}

# Asks the listener to end, for reason $2, told as $1.
stop_listener() {
  say "$1: stopping the listener"
  ending=$2 asked_at=$SECONDS
  kill -INT "$listener" 2>/dev/null
}

# Ends a listener that does not end when asked to. Never while a worker exists: then a job came at the last moment.
insist() {
  asked_at=$SECONDS
  worker_exists && return
  say "the listener did not end within $stop_grace s: sending SIG$harder"
  kill -"$harder" "$listener" 2>/dev/null
  harder=KILL
}

# Whether a job has started. What the listener prints is enough, and so is the worker; the hook's mark confirms it.
job_started() {
  if ((!job)) && { [[ -e $marks/started ]] || worker_exists; }; then
    job=1
  fi
  ((job))
}

# Whether the runner's worker process exists, which is there from before the first step of a job until after its last.
# It is told by its program file, reached by whatever path, as the first word (or second, after an interpreter).
worker_exists() {
  local file words word
  for file in /proc/[0-9]*/cmdline; do
    words=()
    { mapfile -d '' -t -n 2 words <"$file"; } 2>/dev/null
    for word in "${words[@]}"; do
      [[ $word -ef $runner_dir/bin/Runner.Worker ]] && return 0
    done
  done
  return 1
}

# Says why the sandbox ended, from the listener's exit code and what was seen before. A started job comes first:
# then GitHub knows its result, whatever became of the listener.
reason() {
  if [[ -e $marks/refused ]]; then
    echo "$POLICY_REFUSED"
  elif job_started; then
    echo "$SERVED"
  elif ((code == 7 || deprecated)); then
    echo "$VERSION_REFUSED"
  elif [[ $ending == signal ]]; then
    echo "$STOPPED"
  elif [[ $ending == start ]] || ((connected_at < 0)); then
    echo "$REGISTRATION_FAILED"
  elif [[ $ending == idle ]] || ((code == 0 || removed)); then # without a job, 0 means that GitHub removed the runner
    echo "$UNCLAIMED"
  else
    echo "$CRASHED"
  fi
}

# Prints the job-started hook. The policy is part of its text: a workflow can set environment variables.
hook() {
  printf '#!/usr/bin/env bash\nallowed=%q trusted_only=%q marks=%q\n' "${repositories,,}" "$trusted_only" "$marks"
  cat <<'HOOK'
# Fails the job before its first step unless this runner may run it. A runner takes any job whose labels match, so
# this is the first place where it is known which job came.
set +eu # whatever the runner starts its hooks with
LC_ALL=C
: >"$marks/started"

refuse() {
  printf 'Sandrunner refused this job before its first step: %s.\n' "$1"
  printf '%s\n' "$1" >"$marks/refused"
  exit 1
}

# Prints the head repository of the pull request in event file $1, nothing for other events, and fails where it cannot
# tell. It cuts the JSON at its quotes: every second piece is text, the others hold the brackets, colons and commas.
head_repository() {
  local depth=0 in_text=0 is_pull_request=0 head='' text='' piece tail at mark last='' keys=() kinds=()
  while IFS= read -r -d '"' piece || [[ -n $piece ]]; do
    if ((in_text)); then
      text+=$piece
      tail=${piece##*[!\\]}
      if ((${#tail} % 2)); then # that quote was escaped
        text+='"'
        continue
      fi
      if [[ $last == [\{,] && ${kinds[depth]-} == '{' ]]; then
        keys[depth]=$text
      elif [[ "$depth ${keys[*]:1:4}" == '4 pull_request head repo full_name' ]]; then
        head=$text
      fi
      in_text=0
      continue
    fi
    piece=${piece//[[:space:]]/}
    for ((at = 0; at < ${#piece}; at++)); do
      mark=${piece:at:1}
      case $mark in
        '{' | '[')
          [[ "$depth ${keys[1]-}" == '1 pull_request' ]] && is_pull_request=1
          depth=$((depth + 1))
          kinds[depth]=$mark keys[depth]=''
          ;;
        '}' | ']')
          ((depth > 0)) || return 1
          depth=$((depth - 1))
          ;;
        ':' | ',') ;;
        *) continue ;; # a number, true, false or null
      esac
      last=$mark
    done
    in_text=1 text=''
  done <"$1" || return 1
  ((depth == 0 && ${#kinds[@]} > 0)) || return 1
  ((is_pull_request)) || return 0
  [[ $head =~ ^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$ ]] && printf '%s' "$head"
}

# Whether one of the names and patterns means repository $1, and none of those with `!` before it does.
is_allowed() {
  local entry entries is_meant=1
  IFS=' ' read -r -a entries <<<"$allowed"
  for entry in "${entries[@]}"; do
    if [[ $entry == '!'* ]]; then
      [[ $1 != ${entry#!} ]] || return 1
    elif [[ $1 == $entry ]]; then
      is_meant=0
    fi
  done
  return "$is_meant"
}

repository=${GITHUB_REPOSITORY-}
if ! [[ $repository =~ ^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$ ]] || ! is_allowed "${repository,,}"; then
  refuse "this runner does not serve ${repository:-an unknown repository}"
fi
if ((trusted_only)); then
  head=$(head_repository "${GITHUB_EVENT_PATH:-}") ||
    refuse 'this runner serves no forks, and where the pull request comes from cannot be told'
  [[ -z $head || ${head,,} == "${repository,,}" ]] ||
    refuse "this runner serves no forks, the pull request comes from $head"
fi
exit 0
HOOK
}

[[ -z ${SANDRUNNER_JITCONFIG:-} ]] || start_again
main
