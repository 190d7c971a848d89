#!/bin/sh
# Stand-in for bin/metastore.sh of KE 3.x. Its store is a directory; the words, the exit codes and the dangers are those
# of the real tool: `backup` says 0 whatever happened, and *deletes from the live store* what it cannot find in the
# working directory.
home=${KYLIN_HOME:-$(cd -P -- "$(dirname -- "$0")/.." && pwd -P)}
export KYLIN_HOME="$home"
. "$home/bin/standin.sh"
read_knobs
log_call metastore.sh "$@"
find_data
# The real tool tells the world.
echo "INFO  [main] common.KylinConfig : Kylin metadata url is $url" >&2

# Java fails to start, or does not reach the store.
java_broken() {
    [ "$STORE_DOWN" = 1 ] && { echo "ERROR [main] persistence.ResourceTool : Connection refused" >&2; return 0; }
    [ "$NEEDS_JAVA_HOME" = 1 ] && [ -z "$JAVA_HOME" ] && { echo "java: not found" >&2; return 0; }
    return 1
}

new_uuid() {
    # Two length bytes and 36 characters.
    printf '\000\044%s' 00000000-0000-4000-8000-000000000000 > "$1/UUID"
}

# What is Java in the real tool is several programs here: if one of them is killed, Java is, and ends with 137 and without
# its success line.
KILLED=137

# Whether a file of the store only says that its content is elsewhere.
is_marker() {
    first=
    IFS= read -r first < "$1"
    case $first in "$MARKER"*) return 0 ;; *) return 1 ;; esac
}

# Copies one entry's content to a file. The marker of a lost large entry is deleted from the live store.
fetch() {
    if is_marker "$store/$1"; then
        if [ "$BACKUP_MODE" = lost-markers ] || [ ! -f "$working/resources-jdbc/$1" ]; then
            echo "RETRY 1 error resource /$1"
            echo "WARN  [pool-1] persistence.PushdownResourceStore : Marker exists but real file not found, delete marker: /$1" >&2
            echo "ERROR [pool-1] persistence.ResourceTool : expects 1 resources but got 0" >&2
            rm -f "$store/$1"
            return 0
        fi
        source=$working/resources-jdbc/$1
    else
        source=$store/$1
    fi
    case $1 in */*) make_dir "$2/${1%/*}" ;; esac
    cp -p "$source" "$2/$1" || return $KILLED
}

# The part that is Java: returns its exit code, prints its success line.
download() {
    java_broken && return 1
    [ "$BACKUP_MODE" = empty ] && return 1
    new_uuid "$1"
    [ "$BACKUP_MODE" = uuid-only ] && return 1
    store_entries "$store" > "$1.entries" || return $KILLED
    total=$(wc -l < "$1.entries")
    done_count=0
    while IFS= read -r entry; do
        done_count=$((done_count + 1))
        [ "$entry" = UUID ] && continue
        # Lost without a word, from the live store as well.
        [ "$BACKUP_MODE" = forgets ] && [ "$entry" = cube/web_cube.json ] && { rm -f "$store/$entry"; continue; }
        if [ "$done_count" -gt $((total / 2)) ]; then
            case $BACKUP_MODE in
            half) rm -f "$1.entries"; return 137 ;;
            killed) rm -f "$1.entries"; kill -9 $$ ;;
            failed-copy)
                echo "Failed to copy resource /$entry"
                rm -f "$1.entries"
                return 1
                ;;
            esac
            [ -n "$BACKUP_GATE" ] && [ ! -e "$BACKUP_GATE" ] && wait_for_gate "$BACKUP_GATE"
        fi
        fetch "$entry" "$1" || { rm -f "$1.entries"; return $KILLED; }
    done < "$1.entries"
    rm -f "$1.entries"
    # The success line that only Java prints, and prints as well when entries were lost.
    echo "Metadata backed up to $1"
}

backup() {
    litter
    dir=$home/meta_backups/meta_$(date +%Y_%m_%d_%H_%M_%S)
    echo "Starting backup to $dir"
    case $home in
    *\ *)
        # Unquoted, as in the real script: stray directories, and no backup.
        [ "$BLANK_IS_FINE" = 1 ] || {
            mkdir -p $dir
            echo "metadata store backed up to $dir"
            exit 0
        }
        ;;
    esac
    mkdir -p "$dir"
    download "$dir"
    echo "metadata store backed up to $dir"
    exit 0
}

restore() {
    [ -n "$1" ] || { echo "illegal args: restore"; exit 0; }
    java_broken && exit 1
    echo "Starting restoring $1"
    [ -d "$1" ] || { echo "ERROR: $1 does not exist" >&2; exit 1; }
    [ -d "$base" ] || { echo "Failed to copy resource: $base does not exist"; exit 1; }
    [ -e "$1/UUID" ] || new_uuid "$1"
    list=$store.restoring.$$
    store_entries "$1" > "$list" || exit $KILLED
    total=$(wc -l < "$list")
    done_count=0
    while IFS= read -r entry; do
        done_count=$((done_count + 1))
        [ "$entry" = UUID ] && continue
        if [ "$done_count" -gt $((total / 2)) ]; then
            case $RESTORE_MODE in
            half)
                rm -f "$list"
                echo "Failed to copy $((total - done_count + 1)) resource"
                exit 1
                ;;
            killed) rm -f "$list"; kill -9 $$ ;;
            esac
            [ -n "$RESTORE_GATE" ] && [ ! -e "$RESTORE_GATE" ] && wait_for_gate "$RESTORE_GATE"
        fi
        case $entry in */*) make_dir "$store/${entry%/*}" ;; esac
        if is_large "$entry"; then
            make_dir "$working/resources-jdbc/${entry%/*}"
            cp -p "$1/$entry" "$working/resources-jdbc/$entry" &&
                printf '%s' "$MARKER" > "$store/$entry" &&
                touch -r "$1/$entry" "$store/$entry"
        else
            cp -p "$1/$entry" "$store/$entry"
        fi || { rm -f "$list"; exit $KILLED; }
    done < "$list"
    rm -f "$list"
    keep_store
    echo "Metadata restored from $1"
}

reset_store() {
    java_broken && exit 1
    store_entries "$store" | while IFS= read -r entry; do
        ! is_large "$entry" || rm -f "$working/resources-jdbc/$entry" || exit
    done || exit $KILLED
    find "$store" -type f ! -name '*.part' ! -path "$store/UUID" -exec rm -f {} + || exit $KILLED
    wait_for_gate "$RESET_GATE"
    find "$store" -mindepth 1 -depth -type d -exec rmdir {} + 2> /dev/null
    keep_store
    exit 0
}

# Whether an entry lies below a folder of the store.
holds_entry() {
    for inner in "$1"/*; do
        case $inner in *.part) continue ;; esac
        [ -f "$inner" ] && return 0
        [ -d "$inner" ] && holds_entry "$inner" && return 0
    done
    return 1
}

# The names one level below a folder, as Java prints a sorted set. What holds no entry is no folder, and prints as null.
# By the shell alone: this is called for every folder of every backup.
list() {
    echo "Starting list $1"
    java_broken && exit 1
    [ -d "$store" ] || exit 1
    folder=${1#/}
    folder=${folder%/}
    LC_ALL=C
    line=
    for path in "$store${folder:+/$folder}"/*; do
        case $path in *.part) continue ;; esac
        [ -f "$path" ] || { [ -d "$path" ] && holds_entry "$path"; } || continue
        line="$line${line:+, }${folder:+/$folder}/${path##*/}"
    done
    [ -n "$line" ] || { echo null; exit 0; }
    echo "[$line]"
}

case $1 in
backup) backup ;;
restore) restore "$2" ;;
reset) reset_store ;;
list) list "$2" ;;
clean)
    java_broken && exit 1
    echo "entries that nothing refers to:"
    (cd "$store" && find garbage -type f 2> /dev/null)
    [ "$2 $3" != '--delete true' ] || rm -rf "$store/garbage"
    ;;
cat)
    java_broken && exit 1
    [ -f "$store/${2#/}" ] && fetch "${2#/}" "$store.cat.$$" && cat "$store.cat.$$/${2#/}" 2> /dev/null
    rm -rf "$store.cat.$$"
    ;;
remove) java_broken && exit 1; rm -f "$store/${2#/}" ;;
*) fail "usage: metastore.sh backup [RESOURCE_PATH_PREFIX]" ;;
esac
