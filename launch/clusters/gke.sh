#!/usr/bin/env bash
# A job on GKE through the Cluster Toolkit: `gcluster job submit`, a JobSet each.
#
#   launch/clusters/gke.sh submit NAME --type=v6e-8 --cluster=… --location=… \
#     [--image=… | --base-image=python:3.11] [--indices=0-7] [--restarts=10] \
#     [--topology=2x4] [--queue=…] [--wait] -- PROGRAM…
#   launch/clusters/gke.sh list | logs NAME | cancel NAME   --cluster=… …
#
# --indices=0-7 submits eight JobSets, NAME-0 to NAME-7, with {index} in PROGRAM
# replaced: replicas are independent, and one JobSet restarts as a whole, also
# after SIGTERM, from which a pod has 120 s (a spot machine may give fewer: set
# --config.runtime.grace_secs=15). A slice of N hosts is one group, and needs
# --config.runtime.hosts=N (to a launch.sweep after --); eight replicas are
# --config.runtime.replicas=8 --config.runtime.replica={index}. Without
# --image, what git does not ignore is laid on --base-image (set
# GCLUSTER_IMAGE_REPO), and each pod installs from the lock file before it starts.
# All pods of a job have one image; each fails where a version is not the lock's.
# --dry-run prints every command as it would be run, and runs none.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/commands.sh"

image='' base_image=python:3.11 extras=tpu,gcs
cluster='' location='' project='' type='' topology='' queue=''
restarts=10 indices='' wait=''
options='image base_image extras cluster location project'
options+=' type topology queue restarts indices'
switches='wait'

gcluster_job() {
  local verb=$1
  shift
  [[ -n $cluster && -n $location ]] || die "$verb needs --cluster, --location."
  run gcluster job "$verb" "$@" --cluster="$cluster" --location="$location" \
    ${project:+"--project=$project"}
}

# What a pod runs: PROGRAM with its index, after an installation.
pod_command() {
  local words=("${program[@]//\{index\}/$1}") line
  printf -v line '%q ' "${words[@]}"
  if [[ -n $image ]]; then
    printf 'exec %s' "${line% }"
  else
    printf 'cd /erp && export ERP_CODE=/erp ERP_VENV=/erp/.venv && '
    printf 'export ERP_PYTHON=python3 && '
    printf 'bash launch/clusters/host.sh install %q && ' "$extras"
    printf 'bash launch/clusters/host.sh versions && '
    # shellcheck disable=SC2016 # The pod's path.
    printf 'PATH=/erp/.venv/bin:"$PATH" exec %s' "${line% }"
  fi
}

submit_one() {
  local source=(--image="$image")
  [[ -n $image ]] ||
    source=(--base-image="$base_image" --build-context="$context")
  gcluster_job submit --name="$1" "${source[@]}" --compute-type="$type" \
    ${topology:+"--topology=$topology"} ${queue:+"--queue=$queue"} \
    --restarts="$restarts" --grace-period=120s ${wait:+--await-job-completion} \
    --command="$(pod_command "$2")"
}

submit() {
  local index failed=''
  [[ -n $type ]] || die "submit needs --type, as in --type=v6e-8."
  [[ ${#program[@]} != 0 ]] || die "submit needs a program, after --."
  [[ -n $indices || "${program[*]}" != *'{index}'* ]] ||
    die "{index} needs --indices, as in --indices=0-7."
  if [[ -z $indices ]]; then
    submit_one "$name" ''
    return
  fi
  [[ $indices =~ ^([0-9]+)-([0-9]+)$ ]] ||
    die "--indices=$indices must be FIRST-LAST, as in 0-7."
  [[ -z $wait ]] || die "--wait is of one job: watch these by launch.status."
  for ((index = BASH_REMATCH[1]; index <= BASH_REMATCH[2]; index++)); do
    submit_one "$name-$index" "$index" || failed="$failed $index"
  done
  [[ -z $failed ]] || die "not submitted: index$failed; the others were."
}

# A folder of the code under its name in the image, for --build-context.
make_context() {
  [[ $name =~ ^[a-z0-9-]+$ ]] ||
    die "the name $name must be of a-z, 0-9 and -."
  context=runs/gke/$name
  run rm -rf "$context"
  run mkdir -p "$context/erp"
  pack "$context/code.tgz"
  run tar -xzf "$context/code.tgz" -C "$context/erp"
  run rm "$context/code.tgz"
}

[[ $# -ge 1 ]] || die "usage: see the top of $0."
verb=$1
read_arguments "${@:2}"
[[ -n $name || $verb == list ]] || die "name the job: $0 $verb NAME."
case $verb in
  submit)
    [[ -n $image ]] || make_context
    submit
    ;;
  list) gcluster_job list ;;
  logs | cancel) gcluster_job "$verb" "$name" ;;
  *) die "no command $verb; allowed: submit, list, logs, cancel." ;;
esac
