# What the scripts of a home of real parts have in common: sourced. Where Java and the jars are stands in a file that
# the bed wrote; bin/bed holds its path. Nastiness is switched on in a file beside the home, as a swap of trees would
# take one in it along:
#   JAVA         another Java, a broken one
#   START_FAIL   `start` says this and exits 1
#   START_LATE   the server is there so many seconds after `start` has returned
#   PID_LATE     the pid file is written so many seconds after that
#   STOP_LIES    `stop` exits 0, and the server lives
#   PID_STAYS    `stop` leaves the pid file
#   TOOL_MEMORY, SERVER_MEMORY
#                what Java may have, as it wants it said: 300m
#   KILL         `before backup`, `during reset`, `after start` and the like: whoever called the script is killed there
#   KILL_JAVA    `backup`, `reset`, `restore`: the tool's Java is killed in the middle of its work
# The last two work once; then `knobs.struck` is there.

home=${KYLIN_HOME:-$(cd -P -- "$(dirname -- "$0")/.." && pwd -P)}
export KYLIN_HOME="$home"
START_FAIL='' START_LATE=0 PID_LATE=0 STOP_LIES='' PID_STAYS='' KILL='' KILL_JAVA=''
. "$(cat "$home/bin/bed")"
knobs=$(dirname "$home")/knobs
[ ! -f "$knobs" ] || . "$knobs"

# The product's tools run with all of the home's own jars; those that it has from elsewhere come after them.
classes=$home/conf:$home/lib/*:$home/ext/*

fail() {
    echo "$*"
    exit 1
}

spend() { # a knob that works once
    sed -i "/^$1=/d" "$knobs"
    echo "${!1}" > "$knobs.struck"
}

strike() { # before|during|after command
    [ "$KILL" != "$1 $2" ] || { spend KILL; kill -9 "$PPID"; }
}
