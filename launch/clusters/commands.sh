# What the launchers share; sourced, not run.
# shellcheck shell=bash

dry_run=''

say() { printf '%s: %s\n' "$(basename "$0")" "$*"; }

die() {
  printf '%s: error: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# A word as a shell reads it back.
quoted() {
  if [[ $1 =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
    printf '%s' "$1"
  else
    printf '%s' "${1@Q}"
  fi
}

# Prints a command as it is run, and runs it unless this is a dry run.
run() {
  local word line=''
  for word in "$@"; do
    line="$line $(quoted "$word")"
  done
  printf '+%s\n' "$line"
  [[ -n $dry_run ]] || "$@"
}

# --some-name=value sets some_name.
set_option() {
  local option=${1%%=*}
  option=${option#--}
  printf -v "${option//-/_}" '%s' "${1#*=}"
}

# What git does not ignore, with changes that are not committed, as one archive.
pack() {
  local top
  top=$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel)
  run bash -o pipefail -c 'git -C "$1" ls-files -z --cached --others --exclude-standard |
    tar -czf "$2" -C "$1" --null --files-from=-' pack "$top" "$1"
}
