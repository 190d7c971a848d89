#!/bin/sh
# The product's own upgrader, which kytx replaces and must never run: it only tells on who called it.
home=$(cd -P -- "$(dirname -- "$0")/.." && pwd -P)
. "$home/bin/standin.sh"
read_knobs
log_call upgrade.sh "$@"
fail "Upgrade failed."
