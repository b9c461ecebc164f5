#!/usr/bin/env bash
# A Cloud TPU slice from first to last, every host of it, through gcloud.
#
#   launch/clusters/tpu_vm.sh create NAME --type=v5e-8 [--spot] [--image=…]
#   launch/clusters/tpu_vm.sh sync NAME [--extras=tpu,gcs] [--python=python3.11]
#   launch/clusters/tpu_vm.sh run NAME [--job=main] [--wait] -- PROGRAM…
#   launch/clusters/tpu_vm.sh logs NAME [--job=main] [--lines=20]
#   launch/clusters/tpu_vm.sh stop NAME [--job=main]
#   launch/clusters/tpu_vm.sh delete NAME
#
# Types are v4-8 to v4-…, v5e-…, v5p-… and v6e-…. Everywhere: --zone, --project,
# --out (what hosts said lies in OUT/NAME/STEP/HOST.log), and --dry-run, which
# prints every command as it would be run, and runs none.
#
# sync copies what git does not ignore, installs it from the lock file and
# compares versions across hosts, as run does again before it starts PROGRAM on
# each, detached: on N hosts with --config.runtime.hosts=N, as they are one group
# (to a launch.sweep after --). Where that fails on one it is stopped on all. logs
# ends with 1 if the program has failed on a host, or never began there; run
# --wait watches until all have ended, and stops the others where one fails; it
# ends with 75 if SIGTERM stopped the program: the same command goes on.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/commands.sh"

image='' spot='' type='' zone='' project=''
extras=tpu,gcs python=python3.11
job=main lines=20 wait='' poll=60
out=runs/hosts
options='image type zone project extras python job lines poll out'
switches='spot wait'
# Of a host where the program has not ended with 0, and will not.
ended_badly='^state: (failed|lost|none)'

gcloud_tpu() {
  local verb=$1
  shift
  run gcloud compute tpus tpu-vm "$verb" "$@" \
    ${zone:+"--zone=$zone"} ${project:+"--project=$project"}
}

# Runs host.sh on every host; STEP names the folder of what each said.
on_hosts() {
  local step=$1 command
  shift
  printf -v command '%q ' "$@"
  run rm -rf "$out/$name/$step"
  run mkdir -p "$out/$name/$step"
  gcloud_tpu ssh "$name" --worker=all --quiet \
    --output-directory="$out/$name/$step" --command="${command% }"
}

# As on_hosts, but fails with the words of each host that did not succeed.
on_all_hosts() {
  local step=$1 ended=0 file
  on_hosts "$@" || ended=$?
  [[ -z $dry_run ]] || return 0
  for file in "$out/$name/$step"/*.log; do
    [[ -e $file ]] || continue
    if ! tail -n 1 "$file" | grep -qx 'host.sh: ok'; then
      [[ $ended != 0 ]] || ended=1
      printf '== %s, host %s, failed to %s:\n' "$name" "$(host "$file")" "$step"
      tail -n 5 "$file"
    fi
  done >&2
  return "$ended"
}

host() { basename "$1" .log; }

compare_versions() {
  local file first='' different=''
  on_all_hosts versions "${prefix[@]}" versions || die "$name: no versions."
  [[ -z $dry_run ]] || return 0
  for file in "$out/$name/versions"/*.log; do
    grep '^version: ' "$file" > "${file%.log}.txt"
    if [[ -z $first ]]; then
      first=${file%.log}
    elif ! diff "$first.txt" "${file%.log}.txt" >&2; then
      different="$different $(host "$file")"
    fi
  done
  [[ -z $different ]] ||
    die "versions on hosts$different are not those on $(host "$first"): sync."
  say "all hosts of $name have the same versions"
}

create() {
  [[ -n $type ]] || die "create needs --type, as in --type=v5e-8."
  case $type in
    v4-*) image=${image:-tpu-ubuntu2204-base} ;;
    v5e-* | v5litepod-*)
      image=${image:-v2-alpha-tpuv5-lite}
      type=v5litepod-${type##*-}
      ;;
    v5p-*) image=${image:-v2-alpha-tpuv5} ;;
    v6e-*) image=${image:-v2-alpha-tpuv6e} ;;
    *) die "--type=$type is unknown; allowed: v4-N, v5e-N, v5p-N, v6e-N." ;;
  esac
  gcloud_tpu create "$name" --accelerator-type="$type" --version="$image" \
    ${spot:+--spot}
}

sync() {
  run mkdir -p "$out/$name"
  pack "$out/$name/code.tgz"
  on_all_hosts folder bash -c 'mkdir -p erp/jobs && echo host.sh: ok' ||
    die "$name: not all hosts answer."
  gcloud_tpu scp "$out/$name/code.tgz" "$here/host.sh" "$name:erp/" \
    --worker=all --quiet
  on_all_hosts unpack "${prefix[@]}" unpack erp/code.tgz ||
    die "$name: the code is not on all hosts."
  on_all_hosts install env "ERP_PYTHON=$python" "${prefix[@]}" \
    install "$extras" || die "$name: not installed on all hosts."
  compare_versions
}

start() {
  local answers
  [[ ${#program[@]} != 0 ]] || die "run needs a program, after --."
  compare_versions
  on_all_hosts state "${prefix[@]}" state "$job" ||
    die "$name: a host does not answer."
  if [[ -z $dry_run ]] &&
    grep -qx 'state: running' "$out/$name/state"/*.log; then
    die "$name: $job runs already: stop it first, or give --job=NAME."
  fi
  if [[ -z $dry_run ]]; then
    answers=("$out/$name/state"/*.log)
    check_hosts "${#answers[@]}"
  fi
  if ! on_all_hosts start env "ERP_METADATA=$metadata" "${prefix[@]}" \
    start "$job" "${program[@]}"; then
    stop || say "stopping failed too: see $out/$name/stop"
    die "$name: $job did not start on all hosts, so it was stopped on the rest."
  fi
  [[ -n $dry_run ]] || say "started; see: $0 logs $name --job=$job"
  [[ -z $wait ]] || watch
}

# The state of each host, and how many run, have failed, or were interrupted.
look() {
  local tries=1
  until on_all_hosts state "${prefix[@]}" state "$job"; do
    [[ $tries -lt 5 ]] ||
      die "$name: a host does not answer; the program goes on where it can."
    tries=$((tries + 1))
    sleep "$poll"
  done
  running=$(cat "$out/$name/state"/*.log | grep -cx 'state: running') || true
  failed=$(cat "$out/$name/state"/*.log | grep -cE "$ended_badly") || true
  interrupted=$(cat "$out/$name/state"/*.log |
    grep -cx 'state: interrupted') || true
}

watch() {
  if [[ -n $dry_run ]]; then
    on_all_hosts state "${prefix[@]}" state "$job"
    return
  fi
  look
  while [[ $running != 0 && $failed == 0 ]]; do
    sleep "$poll"
    look
  done
  if [[ $failed != 0 ]]; then
    [[ $running == 0 ]] || stop
    logs
  fi
  if [[ $interrupted != 0 ]]; then
    say "$job was stopped by SIGTERM: the same run goes on where it was."
    exit 75
  fi
  say "$job has ended with 0 on all hosts of $name"
}

logs() {
  local file bad=0
  on_all_hosts log "${prefix[@]}" log "$job" "$lines" || bad=1
  [[ -z $dry_run ]] || return 0
  for file in "$out/$name/log"/*.log; do
    printf '== %s, host %s, ' "$name" "$(host "$file")"
    grep -vx 'host.sh: ok' "$file" || echo 'says nothing'
    ! grep -qE "$ended_badly" "$file" || bad=1
  done
  [[ $bad == 0 ]] || die "$job has failed on a host of $name, or never began there."
}

stop() { on_all_hosts stop "${prefix[@]}" stop "$job"; }

delete() { gcloud_tpu delete "$name" --quiet; }

prefix=(bash erp/host.sh)
# Says which host of the slice one is.
metadata=http://metadata.google.internal/computeMetadata/v1/instance/attributes
metadata=$metadata/agent-worker-number
[[ $# -ge 2 ]] || die "usage: see the top of $0."
verb=$1
read_arguments "${@:2}"
[[ -n $name ]] || die "name the slice: $0 $verb NAME."
case $verb in
  create | sync | logs | stop | delete) "$verb" ;;
  run) start ;;
  *) die "no command $verb; allowed: create, sync, run, logs, stop, delete." ;;
esac
