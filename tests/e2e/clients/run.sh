#!/bin/sh
# The client libraries of the lock file against the scripted server and, where DS4_SERVER_BINARY and
# DS4_TINY_MODEL name them, against ds4-server on the small model.  Exit status 77: there is nothing
# to run them with.
#   DS4_SCRIPTED_SERVER=PATH [DS4_SERVER_BINARY=PATH DS4_TINY_MODEL=PATH] tests/e2e/clients/run.sh
set -eu
: "${DS4_SCRIPTED_SERVER:?path of ds4_scripted_server}"
cd "$(dirname "$0")"
if ! command -v npm >/dev/null || ! node -e 'process.exit(Number(process.versions.node.split(".")[0] < 20))'; then
  echo "skipped: node 20 or later and npm are not installed"
  exit 77
fi
if ! [ node_modules/.package-lock.json -nt package-lock.json ]; then
  npm ci --no-audit --no-fund --loglevel=error || {
    echo "skipped: the npm registry cannot be reached"
    exit 77
  }
fi
suites="openai.test.js anthropic.test.js"
if [ -n "${DS4_SERVER_BINARY:-}" ] && [ -n "${DS4_TINY_MODEL:-}" ]; then
  suites="$suites embedded.test.js"
fi
# shellcheck disable=SC2086
exec node --test $suites
