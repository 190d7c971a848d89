#!/bin/sh
# Stand-in for bin/metastore.sh of KE 4.x / Kylin 5: the path is announced before anything is copied, the verdict comes
# in colour, and the exit code of `backup` says nothing.
home=${KYLIN_HOME:-$(cd -P -- "$(dirname -- "$0")/.." && pwd -P)}
export KYLIN_HOME="$home"
. "$home/bin/standin.sh"
read_knobs
log_call metastore.sh "$@"
find_data
make_dir "$home/logs"
echo "INFO  [main] metadata.url=$url" >> "$home/logs/shell.stderr"
echo "metadata.url=$url" >&2

say() {
    printf '\033[33m%s\033[0m\n' "$1"
}

backup_failed() {
    say 'Backup failed. Detailed Message is at "logs/shell.stderr".'
    exit 0
}

copy_store() {
    (cd "$store" && find . -type d -exec sh -c 'cd "$0" && mkdir -p "$@"' "$1" {} +)
    store_entries "$store" > "$1.entries" || return 1
    total=$(wc -l < "$1.entries")
    done_count=0
    while IFS= read -r entry; do
        done_count=$((done_count + 1))
        if [ "$done_count" -gt $((total / 2)) ]; then
            case $BACKUP_MODE in
            half | lost-markers | failed-copy) rm -f "$1.entries"; return 1 ;;
            killed) rm -f "$1.entries"; kill -9 $$ ;;
            esac
            [ -n "$BACKUP_GATE" ] && [ ! -e "$BACKUP_GATE" ] && wait_for_gate "$BACKUP_GATE"
        fi
        # Each of these programs is Java in the real tool, whose end the script notices.
        cp -p "$store/$entry" "$1/$entry" || { rm -f "$1.entries"; return 1; }
    done < "$1.entries"
    rm -f "$1.entries"
}

backup() {
    if [ -n "$1" ]; then
        [ -d "$1" ] || fail "$1 does not exist"
        root=$1
    else
        root=$home/meta_backups
        mkdir -p "$root"
    fi
    dir=$root/$(date +%Y-%m-%d-%H-%M-%S)_backup
    [ -e "$dir" ] && { echo "$dir already exists" >> "$home/logs/shell.stderr"; backup_failed; }
    echo "The metadata backup path is $dir."
    [ "$STORE_DOWN" = 1 ] && backup_failed
    [ "$NEEDS_JAVA_HOME" = 1 ] && [ -z "$JAVA_HOME" ] && backup_failed
    mkdir -p "$dir"
    case $BACKUP_MODE in
    empty) say 'Backup at local disk succeed.'; exit 0 ;;
    uuid-only) cp -p "$store/UUID" "$dir/UUID"; say 'Backup at local disk succeed.'; exit 0 ;;
    esac
    if copy_store "$dir" || [ "$BACKUP_MODE" = half ]; then
        say 'Backup at local disk succeed.'
        exit 0
    fi
    backup_failed
}

restore() {
    [ -d "$1" ] || fail "$1 does not exist"
    [ -n "$(ls -A "$1")" ] || fail "$1 is empty"
    [ -f "$1/UUID" ] || fail "$1 is not consistent"
    sh "$home/bin/kylin.sh" org.apache.kylin.tool.MaintainModeTool -on || exit $?
    # A kill from here on leaves maintenance mode on.
    result='Restore succeed.'
    if [ "$2" = --after-truncate ]; then
        find "$store" -mindepth 1 -delete || result='Restore failed.'
    fi
    list=$store.restoring.$$
    store_entries "$1" > "$list" || result='Restore failed.'
    total=$(wc -l < "$list")
    done_count=0
    while IFS= read -r entry; do
        done_count=$((done_count + 1))
        if [ "$done_count" -gt $((total / 2)) ]; then
            [ "$RESTORE_MODE" = killed ] && { rm -f "$list"; kill -9 $$; }
            [ "$RESTORE_MODE" = half ] && { result='Restore failed.'; break; }
            [ -n "$RESTORE_GATE" ] && [ ! -e "$RESTORE_GATE" ] && wait_for_gate "$RESTORE_GATE"
        fi
        case $entry in */*) make_dir "$store/${entry%/*}" ;; esac
        cp -p "$1/$entry" "$store/$entry" || { result='Restore failed.'; break; }
    done < "$list"
    rm -f "$list"
    keep_store
    say "$result"
    sh "$home/bin/kylin.sh" org.apache.kylin.tool.MaintainModeTool -off
    if [ "$result" = 'Restore succeed.' ] && [ -d "$base" ]; then
        mkdir -p "$working/_backup"
        rm -rf "$working/_backup/core_meta"
        cp -Rp "$store" "$working/_backup/core_meta"
    fi
    # The code of the restore is swallowed.
    exit 0
}

case $1 in
backup) backup "$2" ;;
restore) restore "$2" "$3" ;;
list) (cd "$store" && find . -type f | sed 's|^\.||' | LC_ALL=C sort) ;;
*) fail "usage: metastore.sh backup METADATA_BACKUP_PATH" ;;
esac
