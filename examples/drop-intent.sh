#!/bin/sh
# Drops an intent the way a producer should: whole, durable, and never over another file.
#
#   drop-intent.sh INBOX FILE [NAME]
#
# NAME is what the file is called in the inbox, `intent-<id>.json` or `<id>.intent.json`; without it,
# an own name is made for each drop. The name is printed.
set -eu

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    echo "usage: $0 INBOX FILE [NAME]" >&2
    exit 2
fi
inbox=$1
file=$2
name=${3:-intent-$(date -u +%Y%m%dT%H%M%S.%NZ)-$$.json}

# A dot-name is left alone by intentd, so the file may grow there. It has to be on the inbox's own
# filesystem, or the rename below would be a copy.
temporary=$(mktemp "$inbox/.drop.XXXXXXXX")
trap 'rm -f -- "$temporary"' EXIT
cat -- "$file" >"$temporary"
# The inbox hands its group on to the file; the service reads it as a member of that group.
chmod 0640 "$temporary"

# Content first, then the name: after a power cut, the file is there in full or not at all.
sync "$temporary"
# Not over an intent of the same name that still waits: it would be lost without a trace.
mv -n -T -- "$temporary" "$inbox/$name"
if [ -e "$temporary" ]; then
    echo "$0: \`$name\` already waits in $inbox; choose another name" >&2
    exit 1
fi
# The name is durable too, where the inbox may be listed; elsewhere the kernel sees to it in a while.
sync "$inbox" 2>/dev/null || true
printf '%s\n' "$name"
