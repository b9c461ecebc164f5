#!/usr/bin/env bash
# One host's part of a launch: installs from the lock file, starts a program
# detached, tells how it is, and stops it by the id that it wrote down.
#
#   host.sh unpack ARCHIVE      the code, in place of what was there
#   host.sh install EXTRAS      a virtual environment, from the lock file
#   host.sh versions            a line each, checked against the lock file
#   host.sh start JOB PROGRAM…  jobs/JOB has its log, process id and exit code
#   host.sh log JOB LINES       a line with its state, then the end of its log
#   host.sh state JOB           running, done, interrupted, failed CODE, lost or
#                               none
#   host.sh stop JOB            SIGTERM, and SIGKILL after $ERP_GRACE seconds
#   host.sh free                removes a TPU's lock that no process holds
#
# Folders lie beside this file, unless ERP_CODE, ERP_VENV and ERP_JOBS name
# others; ERP_PYTHON is the interpreter. ERP_METADATA is a URL that says which
# host of a slice this is: programs get that as ERP_RANK. A command that succeeds
# ends its output with 'host.sh: ok'.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
code=${ERP_CODE:-$root/code}
venv=${ERP_VENV:-$root/venv}
jobs=${ERP_JOBS:-$root/jobs}
python=${ERP_PYTHON:-python3.11}
lock=${ERP_LIBTPU_LOCK:-/tmp/libtpu_lockfile}

say() { printf 'host.sh: %s\n' "$*"; }

die() {
  printf 'host.sh: error on %s: %s\n' "$(hostname)" "$*" >&2
  exit 1
}

as_root() {
  if [[ $EUID == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

# When a process started, in ticks since the host did; fails once it has ended.
start_ticks() {
  local stat
  stat=$(cat "/proc/$1/stat" 2> /dev/null) || return 1
  read -r -a stat <<< "${stat##*) }" # Its name may hold spaces.
  [[ ${stat[0]} != Z ]] || return 1
  printf '%s\n' "${stat[19]}"
}

# Whether a process of this job is left. An id is given to another process only
# once no process has it as its group: then the start differs.
is_left() {
  local pid ticks now
  [[ -s $jobs/$1/pid ]] || return 1
  read -r pid ticks < "$jobs/$1/pid"
  if now=$(start_ticks "$pid"); then
    [[ $now == "$ticks" ]]
  else
    kill -0 -- "-$pid" 2> /dev/null
  fi
}

state() {
  local folder=$jobs/$1
  if is_left "$1"; then
    echo running
  elif [[ -s $folder/code ]]; then
    case $(< "$folder/code") in
      0) echo 'done' ;;
      75) echo interrupted ;; # By SIGTERM: the same program goes on.
      *) echo "failed $(< "$folder/code")" ;;
    esac
  elif [[ -s $folder/pid ]]; then
    echo lost # Killed without a word, or the host restarted.
  else
    echo none
  fi
}

unpack() {
  local folder
  for folder in "$jobs"/*/; do
    [[ -d $folder ]] || continue
    folder=$(basename "$folder")
    ! is_left "$folder" || die "job $folder runs this code: stop it first."
  done
  rm -rf "$code.new"
  mkdir -p "$code.new"
  tar -xzf "$1" -C "$code.new"
  sha256sum < "$1" | cut -c1-16 > "$code.new/.archive"
  # Where jobs whose --workdir is relative have written.
  [[ ! -d $code/runs ]] || mv "$code/runs" "$code.new/runs"
  rm -rf "$code"
  mv "$code.new" "$code"
}

lock_file() {
  local minor
  minor=$("$venv/bin/python" -c 'import sys; print(sys.version_info[1])')
  if [[ $minor == 11 ]]; then
    echo "$code/constraints-py311.txt"
  else
    echo "$code/constraints-latest.txt"
  fi
}

install() {
  local made_of
  made_of=$(cat "$code"/constraints-*.txt "$code/pyproject.toml" - \
    <<< "$python $1 $code" | sha256sum)
  # What runs from it already is not disturbed.
  [[ $(cat "$venv/.made_of" 2> /dev/null) != "$made_of" ]] || return 0
  if ! command -v "$python" > /dev/null; then
    # TPU images have Python 3.10.
    as_root add-apt-repository -y ppa:deadsnakes/ppa
    as_root apt-get -q update
    as_root apt-get -q install -y "$python" "$python-venv"
  fi
  rm -f "$venv/.made_of"
  "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install -q -c "$(lock_file)" -e "${code}[$1]"
  echo "$made_of" > "$venv/.made_of"
}

versions() {
  local installed line
  installed=$("$venv/bin/python" -m pip list --format=freeze)
  if [[ -s $code/.archive ]]; then
    printf 'version: code %s\n' "$(< "$code/.archive")"
  fi
  printf 'version: %s\n' "$("$venv/bin/python" --version)"
  while read -r line; do printf 'version: %s\n' "$line"; done <<< "$installed"
  awk -F '==' '
    function key(name) { gsub(/[-_.]+/, "-", name); return tolower(name) }
    FNR == NR { if ($1 !~ /^#/) locked[key($1)] = $2; next }
    { name = key($1); sub(/[+].*/, "", $2) }
    name in locked && locked[name] != $2 {
      printf "%s is %s, but locked at %s\n", $1, $2, locked[name]
      wrong = 1
    }
    END { exit wrong }
  ' "$(lock_file)" - <<< "$installed" ||
    die "install again, or delete $venv: not as $(lock_file) says."
}

# Processes that hold the TPU: its lock, or its devices.
holders() {
  local inode
  inode=$(stat -c %i "$lock")
  {
    awk -v end=":$inode\$" '$6 ~ end { print $5 }' /proc/locks
    find /proc/[0-9]*/fd -maxdepth 1 \( -lname "$lock" -o \
      -lname '/dev/accel*' -o -lname '/dev/vfio/[0-9]*' \) 2> /dev/null |
      cut -d/ -f3
  } | sort -un | tr '\n' ' '
}

free_tpu() {
  local found
  [[ -e $lock ]] || return 0
  found=$(holders) || true
  [[ -z $found ]] || die "the TPU is held by process $found(its lock is \
$lock): stop that job first."
  rm -f "$lock" 2> /dev/null || as_root rm -f "$lock"
  say "removed $lock, which no process held"
}

start() {
  local job=$1 i
  shift
  ! is_left "$job" ||
    die "job $job runs already: stop it first, or name another with --job."
  free_tpu
  mkdir -p "$jobs/$job"
  rm -f "$jobs/$job/pid" "$jobs/$job/code"
  setsid bash "${BASH_SOURCE[0]}" supervise "$job" "$@" \
    < /dev/null >> "$jobs/$job/log" 2>&1 &
  for ((i = 0; i < 100; i++)); do
    [[ ! -s $jobs/$job/pid ]] || break
    sleep 0.1
  done
  [[ -s $jobs/$job/pid ]] || die "job $job did not start; see $jobs/$job/log."
  say "started $job as process $(cut -d' ' -f1 "$jobs/$job/pid") on $(hostname)"
}

# The leader of the job's processes, which outlives them to note their end.
supervise() {
  local folder=$jobs/$1 ended=0
  shift
  trap : TERM INT HUP
  printf '== %s on %s: %s\n' "$(date -u +%FT%TZ)" "$(hostname)" "$*"
  printf '%s %s\n' "$$" "$(start_ticks "$$")" > "$folder/pid.new"
  mv "$folder/pid.new" "$folder/pid"
  cd "$code"
  if [[ -n ${ERP_METADATA:-} ]]; then
    ERP_RANK=$(curl -fsS -m 20 -H 'Metadata-Flavor: Google' "$ERP_METADATA") ||
      ended=$?
    export ERP_RANK
  fi
  [[ $ended != 0 ]] || PATH=$venv/bin:$PATH "$@" || ended=$?
  printf '== %s ended with %s\n' "$(date -u +%FT%TZ)" "$ended"
  printf '%s\n' "$ended" > "$folder/code.new"
  mv "$folder/code.new" "$folder/code"
}

stop() {
  local pid rest i
  if ! is_left "$1"; then
    say "job $1 does not run on $(hostname)"
    return
  fi
  read -r pid rest < "$jobs/$1/pid"
  kill -TERM -- "-$pid"
  for ((i = 0; i < 10 * ${ERP_GRACE:-120}; i++)); do
    is_left "$1" || break
    sleep 0.1
  done
  if is_left "$1"; then
    kill -KILL -- "-$pid"
    echo 137 > "$jobs/$1/code"
  fi
  say "stopped $1, process $pid, on $(hostname)"
}

main() {
  local what=${1:?see the top of this file}
  shift
  case $what in
    unpack | install | versions | start | stop) "$what" "$@" ;;
    supervise)
      supervise "$@"
      exit # Nothing more is read here: a newer copy may lie in this place.
      ;;
    free) free_tpu ;;
    state) printf 'state: %s\n' "$(state "$1")" ;;
    log)
      printf 'state: %s\n' "$(state "$1")"
      [[ ! -e $jobs/$1/log ]] || tail -n "$2" "$jobs/$1/log"
      ;;
    *) die "no command $what" ;;
  esac
  say ok
}

main "$@"
