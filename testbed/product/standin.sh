# Common ground of the stand-in's scripts; sourced by them, with $home set. POSIX shell and nothing but the base
# utilities, as a machine that only has kytx must be able to run it.
#
# Every nastiness of the real product is a knob. Knobs are shell assignments in a file outside the home, whose path is
# the content of bin/standin.knobs, so that a swap of trees does not lose them. A second file, with the version
# appended to its name, speaks for the home of one version only. What each knob does: src/testbed/knobs.rs.

fail() {
    echo "$@"
    exit 1
}

read_knobs() {
    knobs=
    [ -f "$home/bin/standin.knobs" ] && IFS= read -r knobs < "$home/bin/standin.knobs"
    [ -f "$knobs" ] || fail "stand-in: the knobs file '$knobs' named by $home/bin/standin.knobs is not there"
    version=
    # The product takes the last field of the first line.
    [ -f "$home/VERSION" ] && IFS= read -r version < "$home/VERSION"
    version=${version##* }
    . "$knobs"
    [ -f "$knobs.$version" ] && . "$knobs.$version"
    return 0
}

# One line a call: script, arguments, home, working directory, separated by tabs.
log_call() {
    called=$1
    shift
    [ -z "$CALL_LOG" ] || printf '%s\t%s\t%s\t%s\n' "$called" "$*" "$home" "$(pwd)" >> "$CALL_LOG"
}

sleep_ms() {
    [ "${1:-0}" -eq 0 ] || sleep "$(($1 / 1000)).$(printf '%03d' $(($1 % 1000)))"
}

# Waits until a file is there: a test holds a script at a known place with it.
wait_for_gate() {
    [ -n "$1" ] || return 0
    : > "$1.reached"
    while [ ! -e "$1" ]; do sleep 0.02; done
}

# A zombie has ended; where the first process of a container reaps nobody, it would count as alive for ever.
alive() {
    [ -n "$1" ] && kill -0 "$1" 2> /dev/null || return 1
    stat=
    [ -r "/proc/$1/stat" ] && IFS= read -r stat < "/proc/$1/stat"
    case $stat in *') Z '*) return 1 ;; esac
    return 0
}

# The effective value of a property: kylin.properties, then the override; the last one wins. `read` without -r joins
# continued lines and drops escapes, which is what Java does.
property() {
    value=
    for file in "$home/conf/kylin.properties" "$home/conf/kylin.properties.override"; do
        [ -f "$file" ] || continue
        while IFS= read line || [ -n "$line" ]; do
            line=${line#"${line%%[![:space:]]*}"}
            case $line in
            "$1"[=:[:space:]]*) ;;
            *) continue ;;
            esac
            line=${line#"$1"}
            line=${line#"${line%%[![:space:]]*}"}
            case $line in [=:]*) line=${line#?} ;; esac
            line=${line#"${line%%[![:space:]]*}"}
            value=$line
        done < "$file"
    done
    printf '%s\n' "$value"
}

# Sets url, identifier, store (a directory) and working (a directory: this instance's part of the working directory).
find_data() {
    url=$(property kylin.metadata.url)
    # Only what stands before the first comma is looked at: a password may hold an @, too.
    head=${url%%,*}
    case $head in
    *@*) identifier=${head%@*} ;;
    *) identifier=kylin_metadata ;;
    esac
    [ -n "$identifier" ] || identifier=kylin_metadata
    case $head in
    *@*) store=$METADATA_DIR ;;
    *) store=$head ;;
    esac
    base=$(property kylin.env.hdfs-working-dir)
    base=${base:-/kylin}
    base=${base#file://}
    # A working directory on a cluster: what the stand-in itself keeps in it lies in a local one.
    [ -z "${WORKING_DIR:-}" ] || base=$WORKING_DIR
    base=${base%/}
    working=$base/$identifier
}

# Thousands of these scripts run in a grid of crashes, and a process costs more than what it does.
make_dir() {
    [ -d "$1" ] || mkdir -p "$1"
}

# What any call of the product's tools leaves in the home it runs in.
litter() {
    make_dir "$home/logs"
    make_dir "$home/ext"
    for what in hive hbase hadoop kafka spark flink; do
        echo "export ${what}_dependency=$home/$what" > "$home/bin/cached-$what-dependency.sh"
    done
}

# Entries under these folders are large: the store holds a marker, the content is a file below the working directory.
MARKER='standin: content is in the working directory'
is_large() {
    case $1 in dict/* | table_snapshot/*) return 0 ;; *) return 1 ;; esac
}

store_entries() {
    (cd "$1" && find . -type f ! -name '*.part' | sed 's|^\./||' | LC_ALL=C sort)
}

# A database keeps what it has acknowledged; files keep it once they are synced.
keep_store() {
    [ "$STORE_SYNCS" = 1 ] || return 0
    find "$store" "$working" -exec sync {} +
}
