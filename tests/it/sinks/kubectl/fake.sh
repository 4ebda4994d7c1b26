#!/bin/sh
# Stands for kubectl in tests: it answers from files below the directory that it lies in, in the
# words of kubectl 1.36.3.
#   state/NAMESPACE.NAME   rv, gen, replicas, observed, ready, deleting: shell assignments
#   hpa/NAMESPACE.NAME     target, min, max, rv
#   hook                   run first, with the verb in $verb and a call's options set
#   calls                  one line a call; environment: that of the last one; pids: of all
dir=$(dirname "$0")
echo $$ >>"$dir/pids"
printf '%s' "$1" >"$dir/call.$$"
for argument in "$@"; do [ "$argument" = "$1" ] || printf ' %s' "$argument" >>"$dir/call.$$"; done
echo >>"$dir/call.$$"
cat "$dir/call.$$" >>"$dir/calls"
rm "$dir/call.$$"
env | sort >"$dir/environment"

verb='' names='' namespace='' replicas='' expected='' dry='' patch='' watch='' lenient=''
for argument in "$@"; do
    case $argument in
    --kubeconfig=* | --context=* | --output=json | --output-watch-events | --type=merge | --timeout=0) ;;
    --client | --list | --field-manager=intentd) ;;
    --namespace=*) namespace=${argument#*=} ;;
    --replicas=*) wanted=${argument#*=} ;;
    --resource-version=*) expected=${argument#*=} ;;
    --dry-run=*) dry=${argument#*=} ;;
    --patch=*) patch=${argument#*=} ;;
    --watch) watch=yes ;;
    --ignore-not-found) lenient=yes ;;
    -*) echo "error: unknown flag: $argument" >&2 && exit 1 ;;
    *) if [ -z "$verb" ]; then verb=$argument; else names="$names $argument"; fi ;;
    esac
done
[ ! -e "$dir/hook" ] || . "$dir/hook"

missing() {
    echo "Error from server (NotFound): $1 \"$2\" not found" >&2
    exit 1
}

load() {
    deleting='' && . "$dir/state/$namespace.$1"
}

save() {
    printf 'rv=%s gen=%s replicas=%s observed=%s ready=%s deleting=%s\n' \
        "$rv" "$gen" "$replicas" "$observed" "$ready" "$deleting" >"$dir/state.$$"
    mv "$dir/state.$$" "$dir/state/$namespace.$1"
}

show() {
    gone=''
    [ -z "$deleting" ] || gone=',"deletionTimestamp":"2026-01-01T00:00:00Z"'
    printf '{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"%s","namespace":"%s",' "$1" "$namespace"
    printf '"resourceVersion":"%s","generation":%s%s},"spec":{"replicas":%s},"status":{' "$rv" "$gen" "$gone" "$replicas"
    printf '"observedGeneration":%s,"replicas":%s,"updatedReplicas":%s,"readyReplicas":%s,"availableReplicas":%s,"conditions":[{"type":"Available","status":"True"}]}}' \
        "$observed" "$ready" "$ready" "$ready" "$ready"
}

case "$verb$names" in
version) echo '{"clientVersion":{"gitVersion":"v1.36.3"}}' ;;
auth*) echo 'Resources' ;;
'get horizontalpodautoscalers.v2.autoscaling')
    printf '{"apiVersion":"v1","kind":"List","items":['
    comma=''
    for file in "$dir"/hpa/"$namespace".*; do
        [ -e "$file" ] || continue
        . "$file"
        printf '%s{"metadata":{"name":"%s","resourceVersion":"%s"},"spec":{"minReplicas":%s,' "$comma" "${file##*/$namespace.}" "$rv" "$min"
        printf '"maxReplicas":%s,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"%s"}}}' "$max" "$target"
        comma=','
    done
    echo ']}'
    ;;
'get deployments.v1.apps '*)
    set -- ${names#* deployments.v1.apps}
    if [ -n "$watch" ]; then
        last=''
        while [ -e "$dir/state/$namespace.$1" ]; do
            text=$(cat "$dir/state/$namespace.$1")
            [ "$text" = "$last" ] || { load "$1" && printf '{"type":"MODIFIED","object":%s}\n' "$(show "$1")"; }
            last=$text
            sleep 0.02
        done
        exit 0
    fi
    [ $# = 1 ] || printf '{"apiVersion":"v1","kind":"List","items":['
    comma=''
    for name in "$@"; do
        [ -e "$dir/state/$namespace.$name" ] || { [ -n "$lenient" ] && continue; missing deployments.apps "$name"; }
        load "$name"
        printf '%s' "$comma" && show "$name" && comma=','
    done
    [ $# = 1 ] || echo ']}'
    ;;
'scale deployments.v1.apps/'*)
    name=${names##*/}
    [ -e "$dir/state/$namespace.$name" ] || missing deployments.apps "$name"
    load "$name"
    if [ "$rv" != "$expected" ]; then
        echo "error: Expected resource version to be $expected, was $rv" >&2
        exit 1
    fi
    if [ "$wanted" -gt 90 ]; then
        echo "The deployments \"$name\" is invalid: : ValidatingAdmissionPolicy 'cap' with binding 'cap' denied request: at most 90" >&2
        exit 1
    fi
    old=$rv.$gen
    if [ "$dry" = none ] && [ "$wanted" != "$replicas" ]; then
        rv=$((rv + 1)) gen=$((gen + 1)) replicas=$wanted
        [ -e "$dir/asleep" ] || { observed=$gen && ready=$wanted; }
        save "$name"
    fi
    replicas=$wanted rv=${old%.*} gen=${old#*.}
    show "$name"
    ;;
'patch horizontalpodautoscalers.v2.autoscaling/'*)
    name=${names##*/}
    [ -e "$dir/hpa/$namespace.$name" ] || missing horizontalpodautoscalers.autoscaling "$name"
    . "$dir/hpa/$namespace.$name"
    case $patch in *"\"resourceVersion\":\"$rv\""*) ;; *)
        echo "Error from server (Conflict): Operation cannot be fulfilled on horizontalpodautoscalers.autoscaling \"$name\": the object has been modified; please apply your changes to the latest version and try again" >&2
        exit 1
        ;;
    esac
    min=${patch##*minReplicas\":}
    min=${min%%\}*}
    if [ "$dry" = none ]; then
        rv=$((rv + 1))
        echo "target=$target min=$min max=$max rv=$rv" >"$dir/hpa/$namespace.$name"
        # As its controller does soon.
        load "$target"
        if [ "$replicas" -lt "$min" ] && [ ! -e "$dir/asleep" ]; then
            rv=$((rv + 1)) gen=$((gen + 1)) replicas=$min observed=$((gen)) ready=$min
            save "$target"
        fi
    fi
    echo '{"metadata":{}}'
    ;;
get*) echo 'error: the server doesn'"'"'t have a resource type "cells"' >&2 && exit 1 ;;
*) echo "error: unknown command$names" >&2 && exit 1 ;;
esac
[ ! -e "$dir/after" ] || . "$dir/after"
