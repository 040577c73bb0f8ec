#!/bin/sh
# The client libraries of the lock file against a scripted server.
#   tests/e2e/clients/run.sh PATH/TO/ds4_scripted_server
set -eu
DS4_SCRIPTED_SERVER=$(realpath "${1:?path of ds4_scripted_server}")
export DS4_SCRIPTED_SERVER
cd "$(dirname "$0")"
npm ci --no-audit --no-fund
node --test openai.test.js anthropic.test.js
