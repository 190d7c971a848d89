#!/bin/sh
# The manual's upgrade, typed into a script: upgrade.sh HOME PACKAGE. Stop, back up the metadata, unpack, then what the
# product's own upgrade.sh does (the reference, 9.2): carry licence, configuration, drivers and the operator's
# directories, archive the old home, delete it, and put the new one in its place. A failing command ends it, as it ends
# the product's. Each part is told, so that a kill can be placed.
set -e
old=$1
package=$2
parent=$(dirname "$old")
name=$(basename "$old")

echo stop
# 1 if nothing runs.
"$old/bin/kylin.sh" stop || :

echo back up metadata
"$old/bin/metastore.sh" backup

echo unpack
cd "$parent"
tar -zxf "$package"
new=$parent/$(basename "$package" .tar.gz)

echo carry
[ ! -f "$old/LICENSE" ] || cp "$old/LICENSE" "$new/"
for entry in "$old"/conf/*; do
    to=$new/conf/$(basename "$entry")
    if [ -d "$entry" ] && [ ! -L "$entry" ]; then
        cp -r "$entry" "$new/conf/"
    else
        rm -rf "$to"
        cp -r "$entry" "$to"
    fi
done
for jar in "$old"/ext/*.jar; do
    [ ! -f "$jar" ] || cp "$jar" "$new/ext/"
done
for entry in "$old"/*; do
    case $(basename "$entry") in meta_backups | appid | work) continue ;; esac
    [ -e "$new/$(basename "$entry")" ] || cp -r "$entry" "$new/"
done
# The components are of the same version in both releases: then the product carries their configuration.
cp -r "$old/tomcat/conf/." "$new/tomcat/conf/"
cp -r "$old/spark/conf/." "$new/spark/conf/"

echo archive
tar -zcf "$name.backup.tar.gz" "$name"

echo delete
rm -rf "$old"

echo move
mv "$new" "$old"

echo start
"$old/bin/kylin.sh" start
