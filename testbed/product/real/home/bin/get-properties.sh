#!/bin/bash
# A property as the product itself reads it; an empty line and 0 if Java is broken.
. "$(dirname -- "$0")/bed.sh"
[ $# = 1 ] || { echo 'invalid input'; exit 255; }
value=$("$home/bin/kylin.sh" kytx.bed.OneProperty "$1" 2> /dev/null)
echo "$value"
