# What the launchers share; sourced, not run.
# shellcheck shell=bash

dry_run='' name='' options='' switches=''
program=()

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

# Reads [NAME] [--option=value | --switch]… [-- PROGRAM…] into variables of these
# names; `options` and `switches` are those that there are.
read_arguments() {
  local option
  while [[ $# -gt 0 ]]; do
    option=${1%%=*}
    option=${option#--}
    option=${option//-/_}
    case $1 in
      --)
        program=("${@:2}")
        return
        ;;
      --*=*)
        [[ " $options " == *" $option "* ]] ||
          die "no option ${1%%=*}=; see the top of $0."
        printf -v "$option" '%s' "${1#*=}"
        ;;
      -*)
        [[ " dry_run $switches " == *" $option "* ]] ||
          die "no option $1; see the top of $0."
        printf -v "$option" 1
        ;;
      *)
        [[ -z $name ]] || die "one name at a time, not also $1."
        name=$1
        ;;
    esac
    shift
  done
}

# What git does not ignore, with changes that are not committed, as one archive.
# A file that is deleted, and known to git still, is left out.
pack() {
  local top
  top=$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel)
  run bash -o pipefail -c 'git -C "$1" ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d "" file; do
      [[ ! -e $1/$file && ! -L $1/$file ]] || printf "%s\0" "$file"
    done | tar -czf "$2" -C "$1" --null --files-from=-' pack "$top" "$1"
}

# A program of ours that starts on several hosts is one group, and is told so.
check_hosts() {
  [[ $1 == 1 || ${program[*]} != *launch.* ||
    " ${program[*]} " == *" --config.runtime.hosts=$1 "* ]] ||
    die "the program starts on $1 hosts: give it --config.runtime.hosts=$1."
}
