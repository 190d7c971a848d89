#!/bin/sh
# Stand-in for bin/get-properties.sh: an empty line and 0 whether a key is unset or Java is broken.
home=${KYLIN_HOME:-$(cd -P -- "$(dirname -- "$0")/.." && pwd -P)}
. "$home/bin/standin.sh"
read_knobs
log_call get-properties.sh "$@"
[ $# = 1 ] || [ "$2" = DEC ] || { echo 'invalid input'; exit "${PROPERTIES_USAGE_CODE:-255}"; }
if [ "$PROPERTIES_BROKEN" = 1 ]; then
    echo
    exit 0
fi
property "$1"
