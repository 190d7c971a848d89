#!/bin/bash
# Starts and stops a real Tomcat as the product's own script does, with its words and its codes; runs its Java tools.
. "$(dirname -- "$0")/bed.sh"
tomcat=$home/bin/../tomcat
shipped=$TOOL_CLASSES
# The server classes of Kylin are in a home whose web application is wired to them.
[ ! -f "$home/conf/real-server" ] || shipped=$SERVER_CLASSES

# A zombie has ended.
lives() {
    [ -n "$1" ] && kill -0 "$1" 2> /dev/null && ! grep -q '^State:[[:space:]]Z' "/proc/$1/status" 2> /dev/null
}

serve() {
    local log=
    [ ! -f "$home/conf/kylin-server-log4j.properties" ] ||
        log="-Dlog4j.configuration=file:$home/conf/kylin-server-log4j.properties"
    # shellcheck disable=SC2086
    exec "$JAVA" -Xmx"${SERVER_MEMORY:-400m}" $JVM $log -Djava.util.logging.config.file="$tomcat/conf/logging.properties" \
        -Djava.util.logging.manager=org.apache.juli.ClassLoaderLogManager -Djava.io.tmpdir="$tomcat/temp" \
        -Dcatalina.base="$tomcat" -Dcatalina.home="$tomcat" -Dkylin.server.host-address="localhost:$port" \
        -cp "$tomcat/bin/bootstrap.jar:$tomcat/bin/tomcat-juli.jar:$tomcat/lib/*:$classes:$shipped" \
        org.apache.catalina.startup.Bootstrap start
}

start() {
    mkdir -p "$home/logs" "$home/ext" "$tomcat/temp" "$tomcat/logs"
    [ ! -f "$home/pid" ] || ! lives "$(cat "$home/pid")" || fail "Kylin is running, stop it first"
    [ ! -e "$home/LOCK" ] || fail "Kylin is starting, wait for it"
    trap 'exit 0' TERM
    trap 'rm -f "$home/LOCK"' EXIT
    touch "$home/LOCK"
    [ -z "$START_FAIL" ] || fail "$START_FAIL"
    port=$(sed -n 's/.*<Connector port="\([0-9]*\)".*HTTP.*/\1/p' "$tomcat/conf/server.xml" | head -n 1)
    ! (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null ||
        fail "Port localhost:$port is not available, could not start Kylin."
    (sleep "$START_LATE"; serve) >> "$home/logs/kylin.out" 2>&1 < /dev/null &
    local child=$!
    if [ "$PID_LATE" = 0 ]; then
        echo $child > "$home/pid"
    else
        (sleep "$PID_LATE"; echo $child > "$home/pid") > /dev/null 2>&1 < /dev/null &
    fi
    echo "A new Kylin instance is started by $(id -un). To stop it, run 'kylin.sh stop'"
    echo "Check the log at $home/logs/kylin.log"
    echo "Web UI is at http://localhost:$port/kylin"
}

stop() {
    [ -f "$home/pid" ] || fail "Kylin is not running"
    local pid round
    pid=$(cat "$home/pid")
    lives "$pid" || fail "Kylin with pid $pid is not running"
    echo "Stopping Kylin: $pid"
    if [ -z "$STOP_LIES" ]; then
        kill "$pid"
        # Ten rounds of two seconds there; looked at more often here.
        for ((round = 0; round < 200; round++)); do
            lives "$pid" || break
            sleep 0.1
        done
        ! lives "$pid" || kill -9 "$pid"
        while lives "$pid"; do sleep 0.1; done
    fi
    [ -n "$PID_STAYS" ] || rm -f "$home/pid"
    echo "Kylin with pid $pid has been stopped."
}

case ${1:-} in
start | stop)
    strike before "$1"
    "$1"
    strike after "$1"
    ;;
org.apache.kylin.* | kytx.bed.*)
    mkdir -p "$home/logs" "$home/ext"
    # shellcheck disable=SC2086
    exec "$JAVA" -Xmx"${TOOL_MEMORY:-300m}" $JVM -Dkylin.home="$home" \
        -Dlog4j.configuration=file:"$home/conf/kylin-tools-log4j.properties" \
        -cp "$classes:$TOOL_CLASSES" "$@"
    ;;
*) fail "Usage: 'kylin.sh [-v] start' or 'kylin.sh [-v] stop' or 'kylin.sh [-v] restart'" ;;
esac
