#!/bin/sh
# Stand-in for bin/kylin.sh of KE 3.x: start and stop with the words, the exit codes and the litter of the real one.
# Like the real one it trusts an inherited KYLIN_HOME over its own place.
home=${KYLIN_HOME:-$(cd -P -- "$(dirname -- "$0")/.." && pwd -P)}
export KYLIN_HOME="$home"
. "$home/bin/standin.sh"
read_knobs
log_call kylin.sh "$@"

read_pid() {
    pid=
    [ -f "$home/pid" ] && read -r pid < "$home/pid"
    return 0
}

start() {
    read_pid
    alive "$pid" && fail "Kylin is running, stop it first"
    [ -e "$home/LOCK" ] && fail "Kylin is starting, wait for it"
    [ -x "$SERVICE_PROGRAM" ] || fail "stand-in: SERVICE_PROGRAM='$SERVICE_PROGRAM' in '$knobs' is no program; set it to kytx"
    # A TERM ends the real script with 0 and nothing started; a KILL leaves the lock.
    trap 'exit 0' TERM
    [ "$LOCK_STAYS" = 1 ] || trap 'rm -f "$home/LOCK"' EXIT
    : > "$home/LOCK"
    litter
    wait_for_gate "$START_GATE"
    find_data
    [ "$START_MODE" = fail ] && fail "Failed to create $base. Please make sure the user has right to access $base"
    [ "$START_MODE" = nothing ] && { echo "A new Kylin instance is started by $(id -un)."; exit 0; }
    "$SERVICE_PROGRAM" standin-service --home "$home" --knobs "$knobs" --check-port ||
        fail "The port is not available, could not start Kylin."
    mkdir -p "$home/tomcat/webapps/kylin/WEB-INF" "$home/tomcat/logs" "$home/logrotate"
    echo '<web-app/>' > "$home/tomcat/webapps/kylin/WEB-INF/web.xml"
    echo '<allocations/>' > "$home/conf/fairscheduler.xml"
    echo "* * * * * /usr/sbin/logrotate $home/logrotate/kylin" > "$home/logrotate/cron"
    echo "$home/logs/kylin.out { rotate 10 }" > "$home/logrotate/kylin"
    # The command line by which the real server is known while its pid file is not written yet.
    nohup "$SERVICE_PROGRAM" standin-service --home "$home" --knobs "$knobs" "-Dcatalina.base=$home/tomcat" \
        >> "$home/logs/kylin.out" 2>&1 < /dev/null &
    child=$!
    if [ "${PID_LATE_MS:-0}" -gt 0 ]; then
        (sleep_ms "$PID_LATE_MS"; echo "$child" > "$home/pid") < /dev/null > /dev/null 2>&1 &
    else
        echo "$child" > "$home/pid"
    fi
    start_guardian
    echo "A new Kylin instance is started by $(id -un). To stop it, run 'kylin.sh stop'"
    echo "Check the log at $home/logs/kylin.log"
    echo "Web UI is at http://localhost/kylin"
}

start_guardian() {
    [ "$(property kap.guardian.enabled)" = true ] || return 0
    guardian=
    [ -f "$home/kgid" ] && read -r guardian < "$home/kgid"
    alive "$guardian" && return 0
    nohup sh "$0" guardian < /dev/null >> "$home/logs/guardian.log" 2>&1 &
    echo $! > "$home/kgid"
}

# Restarts the service when its pid file is there and its process is not.
guard() {
    while :; do
        sleep 0.1
        read_pid
        [ -n "$pid" ] && ! alive "$pid" && sh "$0" start
    done
}

stop() {
    if [ -f "$home/kgid" ]; then
        read -r guardian < "$home/kgid"
        alive "$guardian" && kill "$guardian"
        rm -f "$home/kgid"
    fi
    [ -f "$home/pid" ] || fail "Kylin is not running"
    read_pid
    alive "$pid" || { echo "Kylin with pid $pid is not running"; fail "Kylin is not running"; }
    wait_for_gate "$STOP_GATE"
    [ "$STOP_MODE" = fail ] && fail "stand-in: stop fails, and the process lives"
    echo "Stopping Kylin: $pid"
    # Whoever has this number is ended, an innocent process included.
    kill "$pid"
    if [ "$STOP_MODE" != lies ]; then
        waited_ms=0
        while alive "$pid" && [ "$waited_ms" -lt "${STOP_WAIT_MS:-20000}" ]; do
            sleep 0.02
            waited_ms=$((waited_ms + 20))
        done
        alive "$pid" && kill -9 "$pid"
        while alive "$pid"; do sleep 0.02; done
    fi
    sleep_ms "${STOP_TAKES_MS:-0}"
    [ "$STOP_KEEPS_PID" = 1 ] || rm -f "$home/pid"
    echo "Kylin with pid $pid has been stopped."
}

# What nothing refers to lies in `garbage`, and what is broken in `broken`: the tools of KAP 2 list, and delete when told.
check_metadata() {
    find_data
    found=$(cd "$store" && find broken -type f 2> /dev/null)
    [ "$STORE_DOWN" = 1 ] && exit 1
    echo "broken entries: ${found:-none}"
    [ "$1" = recovery ] && [ -n "$found" ] || return 0
    mkdir -p "$home/meta_backups/cleaned_meta_1"
    mv "$store/broken" "$home/meta_backups/cleaned_meta_1/broken"
}

clean_storage() {
    find_data
    echo "files that no segment names:"
    (cd "$working" && find garbage -type f 2> /dev/null)
    [ "$1 $2" != '--delete true' ] || rm -rf "$working/garbage"
}

case $1 in
io.kyligence.kap.tool.metadata.MetadataChecker) check_metadata "$2" ;;
io.kyligence.kap.tool.storage.KapStorageCleanupCLI) clean_storage "$2" "$3" ;;
start) start ;;
stop) stop ;;
restart) sh "$0" stop; exec sh "$0" start ;;
guardian) guard ;;
*) fail "Usage: 'kylin.sh [-v] start' or 'kylin.sh [-v] stop' or 'kylin.sh [-v] restart'" ;;
esac
