#!/bin/bash
# A real Slurm of two hosts on one machine, to try the recipes on: each host has a network, process ids, a name and an
# /etc/hosts of its own, and nothing outside FOLDER is written. As root, with Slurm, munge and iproute2 installed
# (Debian: apt-get install slurm-wlm munge iproute2).
#   cluster/two-nodes.sh up FOLDER ; SLURM_CONF=FOLDER/slurm.conf sbatch --nodes=2 cluster/slurm-ray.sbatch --grid ...
#   cluster/two-nodes.sh kill FOLDER node2      # that host dies, with all that runs on it; `start` brings it back
#   cluster/two-nodes.sh down FOLDER
set -euo pipefail
action=${1:?up, start, kill or down} folder=$(realpath -m "${2:?a folder}")
network=10.79.0 bridge=safemil-slurm nodes="node1 node2" cpus=${CPUS_PER_NODE:-4}

start() { # a host by its name
    local file=$folder/$1.pid
    nsenter --net="/run/netns/safemil-$1" unshare --mount --pid --fork --kill-child --mount-proc --uts bash -c "
        hostname $1
        mount --bind '$folder/hosts' /etc/hosts
        exec slurmd -D -N $1 -f '$folder/slurm.conf'" </dev/null >"$folder/$1.out" 2>&1 &
    echo $! >"$file"
    disown
}

stop() { # a process by the file with its id; what it started inside its namespace goes with it
    [ -f "$1" ] || return 0
    kill -9 "$(cat "$1")" 2>/dev/null || true
    rm -f "$1"
}

case $action in
up)
    mkdir -p "$folder/state"
    chmod 755 "$folder"
    head -c 1024 /dev/urandom >"$folder/munge.key"
    chmod 600 "$folder/munge.key"
    munged --force --foreground --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
        --pid-file="$folder/munged.own" --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" \
        </dev/null >"$folder/munged.out" 2>&1 &
    echo $! >"$folder/munged.pid"
    disown
    ip link add "$bridge" type bridge
    ip addr add "$network.1/24" dev "$bridge"
    ip link set "$bridge" up
    printf '127.0.0.1 localhost\n%s.1 control\n' "$network" >"$folder/hosts"
    {
        cat <<END
ClusterName=safemil-two-nodes
SlurmctldHost=control($network.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.own
SlurmdPidFile=$folder/slurmd-%n.own
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdTimeout=20
InactiveLimit=0
MailProg=/bin/true
ReturnToService=2
PartitionName=all Nodes=ALL Default=YES State=UP
END
        last=10
        for node in $nodes; do
            last=$((last + 1))
            echo "NodeName=$node NodeAddr=$network.$last CPUs=$cpus RealMemory=4000"
        done
    } >"$folder/slurm.conf"
    last=10
    for node in $nodes; do
        last=$((last + 1))
        ip netns add "safemil-$node"
        ip link add "sl-$node" type veth peer name eth0 netns "safemil-$node"
        ip link set "sl-$node" master "$bridge" up
        ip -n "safemil-$node" addr add "$network.$last/24" dev eth0
        ip -n "safemil-$node" link set eth0 up
        ip -n "safemil-$node" link set lo up
        ip -n "safemil-$node" route add default via "$network.1"
        echo "$network.$last $node" >>"$folder/hosts"
    done
    for _ in $(seq 100); do [ -S "$folder/munge.socket" ] && break; sleep 0.1; done
    unshare --uts bash -c "hostname control; exec slurmctld -D -f '$folder/slurm.conf'" \
        </dev/null >"$folder/slurmctld.out" 2>&1 &
    echo $! >"$folder/slurmctld.pid"
    disown
    sleep 2
    for node in $nodes; do start "$node"; done
    for _ in $(seq 300); do
        [ "$(SLURM_CONF=$folder/slurm.conf sinfo -h -t idle -o %D 2>/dev/null || true)" = 2 ] && exit 0
        sleep 0.2
    done
    echo "the two nodes did not come up; logs are in $folder" >&2
    exit 1
    ;;
start) start "${3:?a node}" ;;
kill) stop "$folder/${3:?a node}.pid" ;;
down)
    for file in "$folder"/*.pid; do stop "$file"; done
    for node in $nodes; do
        ip netns del "safemil-$node" 2>/dev/null || true
        ip link del "sl-$node" 2>/dev/null || true
    done
    ip link del "$bridge" 2>/dev/null || true
    ;;
*)
    echo "$action: expected up, start, kill or down" >&2
    exit 2
    ;;
esac
