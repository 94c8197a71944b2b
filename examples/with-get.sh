#!/bin/sh
# A script that needs a credential for a while. The config allows it: [servers.scripts] allow = ["deploy"].
#
#     with-get.sh [--dir DIR]
set -eu

# For as long as this script runs: the lease hangs on it, and ends with it.
token=$(mcp-broker get deploy --bind $$ "$@")

# Not as an argument, which everybody can see in the list of processes: printf is a part of the shell.
printf 'header = "Authorization: Bearer %s"\n' "$token" |
    curl --silent --fail --config - "${DEPLOY_URL:-http://localhost:8080/deploy}"
