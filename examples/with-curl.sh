#!/bin/sh
# Everything that mcp-broker get does is HTTP on a Unix socket, so any language can do it.
#
#     with-curl.sh [SOCKET]
set -eu

socket=${1:-/run/user/$(id -u)/mcp-broker/broker.sock}

# Who am I, as the broker sees me?
curl --silent --fail --unix-socket "$socket" http://broker/v1/whoami
echo

# A credential for a minute. "bind": "none" lets its lease outlive curl, which has ended when we read the answer.
curl --silent --fail --unix-socket "$socket" http://broker/v1/secrets/deploy/issue \
    --header 'Content-Type: application/json' --data '{"ttl": "60s", "bind": "none"}'
echo
