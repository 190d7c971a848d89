#!/bin/bash
# The metadata tool of Kylin 3.1.3, with the words and the exit codes that the product's own script puts around it.
. "$(dirname -- "$0")/bed.sh"
log=$home/logs/kylin-tools.log

tool() {
    "$home/bin/kylin.sh" org.apache.kylin.common.persistence.ResourceTool "$@"
}

# Returns once the tool is at work: it has said in its log that it opened the store, and what it is going to copy.
await_work() { # command, process
    local sign='resources (out of'
    [ "$1" != reset ] || sign='Using metadata url'
    until grep -q "$sign" "$log" 2> /dev/null; do
        kill -0 "$2" 2> /dev/null || return 0
        sleep 0.01
    done
}

# Runs the tool for a command of this script, with what the knobs do to it; returns the tool's code.
work() { # command, argument...
    local command=$1 process code
    shift
    strike before "$command"
    rm -f "$log"
    # Not in the background as such: there its standard input would be another one, and nobody would wait for it.
    tool "$@" <&0 &
    process=$!
    if [ "$KILL_JAVA" = "$command" ]; then
        await_work "$command" $process
        spend KILL_JAVA
        kill -9 $process
    elif [ "$KILL" = "during $command" ]; then
        await_work "$command" $process
        strike during "$command"
    fi
    wait $process
    code=$?
    strike after "$command"
    return $code
}

case ${1:-} in
backup)
    dir=$home/meta_backups/meta_$(date +%Y_%m_%d_%H_%M_%S)
    echo "Starting backup to $dir"
    mkdir -p "$dir"
    work backup download "$dir" ${2:+"$2"}
    # These words and this code come whatever the tool did.
    echo "metadata store backed up to $dir"
    exit 0
    ;;
restore)
    echo "Starting restoring $2"
    # Unquoted, as it is there: without a directory the tool has one argument less.
    work restore upload $2 ${3:+"$3"}
    ;;
reset) work reset reset ;;
list | cat | remove)
    echo "Starting $1 $2"
    tool "$1" "$2"
    ;;
*) fail "usage: metastore.sh backup [RESOURCE_PATH_PREFIX]" ;;
esac
