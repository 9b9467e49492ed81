#!/bin/sh
# Runs a guest image without the Python runtime: try.sh IMAGE ROOT COMMAND [ARGUMENT...]
# ROOT is a directory of the host, shared read-write: for development only. VCPUS, MEMORY (bytes) and DEBUG=true from the environment.
set -eu
image=$1 root=$2
shift 2
vmm=${VMM:-$(dirname "$0")/../target/debug/litebox-vmm}
arguments=$(python3 -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@")
plan=$(mktemp)
cat >"$plan" <<PLAN
{"version": 1, "kernel": "$image", "vcpus": ${VCPUS:-2}, "memory": ${MEMORY:-1073741824}, "debug": ${DEBUG:-false}, "jail": {"enabled": ${JAIL:-false}, "namespaces": [{"type": "ipc"}, {"type": "uts"}]},
 "descriptors": [{"handle": 1, "fd": 0, "kind": "stream"}, {"handle": 2, "fd": 1, "kind": "stream"},
                 {"handle": 3, "fd": 2, "kind": "stream"}, {"handle": 16, "fd": 9, "kind": "tree"}],
 "container": {"id": "try", "hostname": "try",
  "mounts": [{"destination": "/", "kind": "host", "source": "/", "fstype": "ext4", "handle": 16},
             {"destination": "/proc", "kind": "proc", "source": "proc", "fstype": "proc"},
             {"destination": "/dev", "kind": "devtmpfs", "source": "devtmpfs", "fstype": "devtmpfs"},
             {"destination": "/tmp", "kind": "tmpfs", "source": "tmpfs", "fstype": "tmpfs"}],
  "process": {"args": $arguments, "env": ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/", "TERM=${TERM:-dumb}"], "cwd": "/",
              "stdio": [1, 2, 3]}}}
PLAN
exec 8<"$plan" 9<"$root"
rm "$plan"
exec "$vmm" run --plan 8
