#!/bin/sh
# The manual's rollback (the reference, 14): rollback.sh HOME. An operator who sees that there is no archive has nothing
# to roll back to, deletes nothing, and starts what is there.
home=$1
archive=$home.backup.tar.gz
[ ! -x "$home/bin/kylin.sh" ] || "$home/bin/kylin.sh" stop
if [ -f "$archive" ]; then
    cd "$(dirname "$home")" || exit
    rm -rf "$home"
    tar -zxf "$archive"
    # The newest; the names hold the time.
    for backup in "$home"/meta_backups/*; do :; done
    "$home/bin/metastore.sh" restore "$backup"
fi
"$home/bin/kylin.sh" start
