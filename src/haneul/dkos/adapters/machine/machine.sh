# What DKOS does on a machine that it reaches by SSH: one command at a time, as root, each of which may be repeated and
# may be killed at any instant. Arguments are a command and its operands; contents come on standard input.
#
# Everything lies below $base. What is made elsewhere (the unit, interfaces, packet tables, cgroups, kernel settings)
# is first written into $base/made with what was there before, and reset takes away exactly that.
set -eu
umask 022
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

base=/opt/haneul/node
cgroup=haneul-node
unit=/etc/systemd/system/haneul-node.service

# Settings of the kernel that a kubelet or its network changes.
settings='net/ipv4/ip_forward net/ipv4/conf/all/forwarding net/ipv4/conf/default/forwarding
net/ipv4/conf/all/route_localnet net/ipv6/conf/all/forwarding net/ipv6/conf/default/forwarding vm/overcommit_memory
vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes'
links='flannel.1'
tables='ip:kube-proxy ip6:kube-proxy ip:flannel-ipv4 ip6:flannel-ipv6 inet:cni_hostport'

fail() {
    echo "$2" >&2
    exit "$1"
}

has_systemd() {
    [ -d /run/systemd/system ]
}

# The folders that are this node's cgroup: one, or with version 1 one in each hierarchy.
cgroups() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        echo "/sys/fs/cgroup/$cgroup"
        return
    fi
    for folder in /sys/fs/cgroup/*; do
        [ ! -L "$folder" ] && [ -e "$folder/cgroup.procs" ] && echo "$folder/$cgroup"
    done
    return 0
}

processes() {
    for folder in $(cgroups); do
        [ ! -d "$folder" ] || find "$folder" -name cgroup.procs -exec cat {} + 2>/dev/null || true
    done | sort -u
}

facts() {
    echo "user $(id -u)"
    echo "kernel $(uname -r)"
    echo "architecture $(uname -m)"
    echo "clock $(date +%s)"
    echo "init $(cat /proc/1/comm)"
    if has_systemd; then echo "systemd yes"; fi
    if [ "$(wc -l </proc/self/cgroup)" -gt 1 ]; then
        echo "cgroup 1"
        awk -F: '{ gsub(",", "\ncontroller ", $2); print "controller " $2 }' /proc/self/cgroup
    else
        echo "cgroup 2"
        for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do echo "controller $controller"; done
    fi
    awk '$1 == "MemTotal:" { print "memory", int($2 / 1024) }' /proc/meminfo
    echo "cores $(nproc)"
    place=/opt
    [ -d "$place" ] || place=/
    df -Pk "$place" | awk 'NR == 2 { print "disk", int($4 / 1024) }'
    awk '/32 host/ { print "address", last } { last = $2 }' /proc/net/fib_trie | sort -u
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 == "0A" { n = split($2, part, ":"); print "tcp", part[n] }' | sort -u
    cat /proc/net/udp /proc/net/udp6 2>/dev/null | awk '$1 ~ /^[0-9]+:$/ { n = split($2, part, ":"); print "udp", part[n] }' | sort -u
    for link in /sys/class/net/*; do echo "link ${link##*/}"; done
    cat /proc/[0-9]*/comm 2>/dev/null | sort -u | sed 's/^/process /'
    for folder in /etc/kubernetes /var/lib/kubelet /var/lib/rancher /var/lib/k0s; do
        if [ -d "$folder" ] && [ -n "$(ls -A "$folder")" ]; then echo "folder $folder"; fi
    done
    for tool in awk cat chroot cut df find flock gzip head ls mount nproc pivot_root rmdir sed setsid sha256sum sort \
        tar unshare wc; do
        command -v "$tool" >/dev/null || echo "missing $tool"
    done
    for folder in $(cgroups); do
        if [ -d "$folder" ]; then echo "node-cgroup yes"; break; fi
    done
    if [ -e "$base/owner" ]; then echo "owner $(cat "$base/owner")"; fi
}

# Nobody else may change the node until this command ends.
lock() {
    exec 9>>"$base/lock"
    flock -w 60 9 || fail 4 "another command is at work on this machine"
}

owned_by() {
    [ -e "$base/owner" ] || fail 5 "this machine has no node"
    [ "$(cat "$base/owner")" = "$1" ] || fail 3 "this machine is a node of $(cat "$base/owner")"
}

# A folder is there for one process only to have made it; who dies between folder and owner is continued by anybody.
begin() {
    new=/opt/haneul
    [ -d /opt ] || new="/opt /opt/haneul"
    mkdir -p "$base"
    lock
    if [ -e "$base/owner" ]; then
        owned_by "$1"
        return
    fi
    {
        for folder in $new; do echo "folder $folder"; done
        for link in /sys/class/net/veth*; do [ ! -e "$link" ] || echo "found-link ${link##*/}"; done
        for setting in $settings; do
            [ ! -r "/proc/sys/$setting" ] || echo "setting $setting $(cat "/proc/sys/$setting")"
        done
        if [ -e /sys/fs/cgroup/cgroup.subtree_control ]; then
            echo "controllers $(cat /sys/fs/cgroup/cgroup.subtree_control)"
        fi
        for link in $links; do echo "link $link"; done
        for table in $tables; do echo "table $table"; done
        if has_systemd; then echo "unit $unit"; fi
    } >"$base/made.new"
    mv "$base/made.new" "$base/made"
    echo "$1" >"$base/owner.new"
    mv "$base/owner.new" "$base/owner"
}

parts() {
    [ ! -d "$base/parts" ] || ls "$base/parts" | grep -v '\.partial$' || true
}

part() {
    mkdir -p "$base/parts"
    cat >"$base/parts/$1.partial"
    sum=$(sha256sum "$base/parts/$1.partial" | cut -d' ' -f1)
    [ "$sum" = "$1" ] || { rm -f "$base/parts/$1.partial"; fail 6 "a part arrived damaged: $sum instead of $1"; }
    mv "$base/parts/$1.partial" "$base/parts/$1"
}

unpack() {
    lock
    name=$1
    shift
    if [ ! -d "$base/$name" ]; then
        rm -rf "$base/unpacking"
        mkdir "$base/unpacking"
        # A reader that ends early would let "cat" fail unseen, so the count of parts was checked by who calls.
        (cd "$base/parts" && for entry in "$@"; do [ -e "$entry" ] || exit 1; done && cat "$@") \
            | tar -x -f - -C "$base/unpacking" --no-same-owner
        mv "$base/unpacking" "$base/$name"
    fi
    rm -rf "$base/parts"
    for old in "$base"/root-*; do
        [ "$old" = "$base/$name" ] || [ "$(cat "$base/using" 2>/dev/null)" = "${old##*/}" ] || rm -rf "$old"
    done
}

have() {
    if [ -d "$base/$1" ]; then echo yes; else echo no; fi
}

# A node that is made from other settings is a new one: it keeps nothing of the old.
install() {
    lock
    owned_by "$1"
    rm -rf "$base/incoming"
    mkdir -m 700 "$base/incoming"
    tar -x -f - -C "$base/incoming"
    halt
    rm -rf "$base/instance" "$base/started" "$base/data" "$base/settings" "$base/bootstrap"
    chmod 755 "$base/incoming/run-node" "$base/incoming/enter-node"
    for entry in settings bootstrap machine.env run-node enter-node haneul-node.service machine.sh; do
        mv -f "$base/incoming/$entry" "$base/$entry"
    done
    rm -rf "$base/incoming"
    mkdir -p "$base/data/containerd" "$base/data/kubelet" "$base/data/log"
    echo "$5" >"$base/using"
    # Before the node starts for the first time, nothing among its pods' addresses is the node's.
    if [ ! -e "$base/routes-before" ] && [ -n "$(pods)" ]; then
        routes >"$base/routes-before.new"
        mv "$base/routes-before.new" "$base/routes-before"
    fi
    echo "$2 $3 $4" >"$base/instance.new"
    mv "$base/instance.new" "$base/instance"
}

credential() {
    lock
    owned_by "$1"
    rm -rf "$base/incoming"
    mkdir -m 700 "$base/incoming"
    tar -x -f - -C "$base/incoming"
    for entry in "$base"/incoming/bootstrap/*; do
        mv -f "$entry" "$base/bootstrap/${entry##*/}"
    done
    rm -rf "$base/incoming"
}

begin_running() {
    lock
    owned_by "$1"
    [ -e "$base/instance" ] || fail 5 "this machine's node is not installed"
    [ -e "$base/started" ] || { date -u +%Y-%m-%dT%H:%M:%SZ >"$base/started.new" && mv "$base/started.new" "$base/started"; }
    if has_systemd; then
        if ! cmp -s "$base/haneul-node.service" "$unit"; then
            cp "$base/haneul-node.service" "$unit"
            systemctl daemon-reload
        fi
        systemctl enable --quiet --now haneul-node.service
    elif [ -z "$(processes)" ]; then
        setsid "$base/run-node" </dev/null >/dev/null 2>&1 9>&- &
        # It is in its cgroup at once; only then does another look not start it a second time.
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            [ -z "$(processes)" ] || break
            sleep 0.1
        done
    fi
}

running() {
    if has_systemd; then systemctl is-active --quiet haneul-node.service; else [ -n "$(processes)" ]; fi
}

state() {
    [ -e "$base/owner" ] || return 0
    echo "owner $(cat "$base/owner")"
    [ ! -e "$base/instance" ] || echo "instance $(cat "$base/instance")"
    [ ! -e "$base/started" ] || echo "started $(cat "$base/started")"
    if running; then echo "running yes"; fi
}

# Everything that belongs to the node is in its cgroup: the first process of its process namespace takes all others
# along, and what was outside of that namespace is ended by name.
halt() {
    if has_systemd && [ -e "$unit" ]; then
        systemctl disable --quiet --now haneul-node.service || true
    fi
    tries=0
    while alive=$(processes) && [ -n "$alive" ]; do
        # shellcheck disable=SC2086 # one word a process
        kill -KILL $alive 2>/dev/null || true
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || fail 7 "processes of the node do not end: $(echo "$alive" | tr '\n' ' ')"
        sleep 0.1
    done
    for folder in $(cgroups); do
        [ ! -d "$folder" ] || find "$folder" -depth -type d -exec rmdir {} \;
    done
}

stop() {
    [ -e "$base/owner" ] || return 0
    lock
    owned_by "$1"
    halt
}

inside() {
    chroot "$base/$(cat "$base/using")" /usr/bin/env PATH="$PATH" "$@"
}

# The range of the cluster's pods, and the routes into it: those of machines in the same subnet outlive flannel.
pods() {
    sed -n 's/.*"Network": *"\([0-9./]*\)".*/\1/p' "$base/settings/flannel.json" 2>/dev/null || true
}

routes() {
    inside ip -4 route show root "$(pods)"
}

# The kernel takes a while to take namespaces apart; their pairs of interfaces go with them.
pods_gone() {
    tries=0
    while ls /sys/class/net | grep -q '^veth' && [ "$tries" -lt 50 ]; do
        found=$(sed -n 's/^found-link //p' "$base/made")
        left=$(for link in /sys/class/net/veth*; do echo "${link##*/}"; done | grep -vxF "${found:-none}" || true)
        [ -n "$left" ] || return 0
        tries=$((tries + 1))
        sleep 0.1
    done
}

reset() {
    [ -d "$base" ] || return 0
    lock
    if [ -e "$base/owner" ]; then owned_by "$1"; fi
    halt
    if [ -e "$base/made" ]; then
        pods_gone
        if [ -e "$base/using" ] && [ -d "$base/$(cat "$base/using")" ]; then
            sed -n 's/^link //p' "$base/made" | while read -r link; do
                [ ! -e "/sys/class/net/$link" ] || inside ip link delete "$link"
            done
            if [ -e "$base/routes-before" ]; then
                routes | grep -vxF -f "$base/routes-before" | while read -r route; do
                    # To where, and by way of whom; what stands behind is no part of a command.
                    # shellcheck disable=SC2086 # one word an argument
                    inside ip -4 route delete ${route%% dev *}
                done
            fi
            sed -n 's/^table //p' "$base/made" | while IFS=: read -r family table; do
                inside nft list table "$family" "$table" >/dev/null 2>&1 && inside nft delete table "$family" "$table" || true
            done
        fi
        sed -n 's/^unit //p' "$base/made" | while read -r file; do
            [ ! -e "$file" ] || { rm -f "$file" && systemctl daemon-reload; }
        done
        # Only what differs is written: some settings have effects of their own when they are.
        sed -n 's/^setting //p' "$base/made" | while read -r setting value; do
            [ "$(cat "/proc/sys/$setting")" = "$value" ] || echo "$value" >"/proc/sys/$setting"
        done
        sed -n 's/^controllers //p' "$base/made" | while read -r before; do
            for controller in $(cat /sys/fs/cgroup/cgroup.subtree_control); do
                case " $before " in *" $controller "*) ;; *) echo "-$controller" >/sys/fs/cgroup/cgroup.subtree_control || true ;; esac
            done
        done
    fi
    for entry in "$base"/* ; do
        case ${entry##*/} in owner | made | lock) ;; *) rm -rf "$entry" ;; esac
    done
    folders=$(sed -n 's/^folder //p' "$base/made" 2>/dev/null | sort -r)
    rm -rf "$base"
    for folder in $folders; do rmdir "$folder" 2>/dev/null || true; done
}

command=$1
shift
case $command in
    facts | begin | parts | part | have | unpack | install | credential | state | stop | reset) "$command" "$@" ;;
    start) begin_running "$@" ;;
    *) fail 2 "there is no command $command" ;;
esac
