#!/bin/sh
# The coding agents of the lock file (1.2 GB from the npm registry), each through a task of two turns
# against the scripted server.  Exit status 77: there is nothing to run them with.
#   DS4_SCRIPTED_SERVER=PATH tests/e2e/clients/agents/run.sh
set -eu
: "${DS4_SCRIPTED_SERVER:?path of ds4_scripted_server}"
cd "$(dirname "$0")"
if ! command -v npm >/dev/null || ! node -e 'process.exit(Number(process.versions.node.split(".")[0] < 20))'; then
  echo "skipped: node 20 or later and npm are not installed"
  exit 77
fi
if ! [ node_modules/.package-lock.json -nt package-lock.json ]; then
  # Of the lock's versions, but unlike `npm ci` without the programs of other systems, which not
  # every registry has.
  npm install --no-save --no-audit --no-fund --loglevel=error || {
    echo "skipped: the npm registry cannot be reached"
    exit 77
  }
fi
exec node --test agents.test.js
