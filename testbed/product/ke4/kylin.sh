#!/bin/sh
# Stand-in for bin/kylin.sh of KE 4.x / Kylin 5. It refuses a KYLIN_HOME that is spelled otherwise than its own place.
own=$(cd -P -- "$(dirname -- "$0")/.." && pwd -P)
[ -n "$KYLIN_CONF" ] && { echo "KYLIN_CONF is set, unset it first"; exit 1; }
[ -z "$KYLIN_HOME" ] || [ "$KYLIN_HOME" = "$own" ] || { echo "KYLIN_HOME=$KYLIN_HOME doesn't set correctly, please run: unset KYLIN_HOME"; exit 1; }
home=$own
export KYLIN_HOME="$home"
. "$home/bin/standin.sh"
read_knobs
log_call kylin.sh "$@"

# Start appends, so the file may hold several lines: the last is the newest.
read_pid() {
    pid=
    [ -f "$home/pid" ] && pid=$(tail -n 1 "$home/pid")
    return 0
}

start() {
    read_pid
    alive "$pid" && fail "Kylin is running, stop it first"
    [ -x "$SERVICE_PROGRAM" ] || fail "stand-in: SERVICE_PROGRAM='$SERVICE_PROGRAM' in '$knobs' is no program; set it to kytx"
    mkdir -p "$home/logs" "$home/hadoop_conf" "$home/logrotate"
    find_data
    if [ ! -e "$home/bin/check-env-bypass" ]; then
        [ "$START_MODE" = fail ] && fail "ERROR: Check environment failed"
        : > "$home/bin/check-env-bypass"
        echo '<configuration/>' > "$home/hadoop_conf/core-site.xml"
    fi
    wait_for_gate "$START_GATE"
    [ "$START_MODE" = fail ] && fail "ERROR: failed to start"
    echo '<allocations/>' > "$home/conf/fairscheduler.xml"
    echo "* * * * * /usr/sbin/logrotate $home/logrotate/kylin" > "$home/logrotate/cron"
    echo "Kylin is starting. It may take a while. For status, please visit http://localhost/kylin/index.html."
    [ "$START_MODE" = nothing ] && exit 0
    "$SERVICE_PROGRAM" standin-service --home "$home" --knobs "$knobs" --check-port ||
        fail "ERROR: Port is in use, another Kylin server is running?"
    cd "$home/server" || fail "ERROR: no server directory"
    # The command line by which the real server is known while its pid file is not written yet.
    nohup "$SERVICE_PROGRAM" standin-service --home "$home" --knobs "$knobs" -jar newten.jar \
        >> "$home/logs/kylin.out" 2>&1 < /dev/null &
    child=$!
    if [ "${PID_LATE_MS:-0}" -gt 0 ]; then
        (sleep_ms "$PID_LATE_MS"; echo "$child" >> "$home/pid") < /dev/null > /dev/null 2>&1 &
    else
        echo "$child" >> "$home/pid"
    fi
}

stop() {
    rm -f "$home/logrotate/cron"
    [ -f "$home/pid" ] || fail "Kylin is not running"
    read_pid
    alive "$pid" || fail "Kylin is not running"
    wait_for_gate "$STOP_GATE"
    [ "$STOP_MODE" = fail ] && fail "stand-in: stop fails, and the process lives"
    echo "Stopping Kylin: $pid"
    kill "$pid"
    if [ "$STOP_MODE" != lies ]; then
        waited_ms=0
        while alive "$pid" && [ "$waited_ms" -lt "${STOP_WAIT_MS:-30000}" ]; do
            sleep 0.02
            waited_ms=$((waited_ms + 20))
        done
        # Whether the KILL worked is not noticed.
        alive "$pid" && kill -9 "$pid"
    fi
    sleep_ms "${STOP_TAKES_MS:-0}"
    [ "$STOP_KEEPS_PID" = 1 ] || rm -f "$home/pid" "$home/child_process"
    echo "Kylin has been stopped."
}

case $1 in
start) start ;;
stop) stop ;;
restart) sh "$0" stop; exec sh "$0" start ;;
org.apache.kylin.tool.MaintainModeTool)
    find_data
    case $2 in
    -on) : > "$store.maintenance" ;;
    -off) rm -f "$store.maintenance" ;;
    esac
    ;;
*) fail "Usage: 'kylin.sh [-v] start' or 'kylin.sh [-v] stop' or 'kylin.sh [-v] restart'" ;;
esac
