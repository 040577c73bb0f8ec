#!/bin/sh
# Trains in a fixed time and leaves what must be kept in files of at most 15 MiB.
#
#   TINY_OUT=DIR [CUDA_VISIBLE_DEVICES=N] tools/tiny/retrain.sh scratch|refine [SECONDS]
#
# scratch: from nothing.  refine: goes on from models/ds4-tiny.gguf, at half the learning rates.
# SECONDS (default 690) is the time until the last step, compilation included; export and scores take
# about a minute more.  Started again with the same DIR it goes on from the last state saved there.
# DIR gets MODE.log while it runs, then MODE.tar.xz.NN (checkpoint, tokenizer, scores, log) and MODE.done.
# To use them: cat DIR/MODE.tar.xz.* | tar xJ -C WHERE; ds4-gguf convert --hf WHERE/MODE --out FILE --quant mxfp4
set -eu
mode=${1:?scratch or refine}
seconds=${2:-690}
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
mkdir -p "$TINY_OUT"
cd "$here/../.."
case $mode in
  scratch) set -- ;;
  refine) set -- --start models/ds4-tiny.gguf --rate 0.5 --seed 2 --decay 0.8 ;;
  *) echo "retrain.sh: expected scratch or refine, got '$mode'" >&2; exit 2 ;;
esac
{
  python3 -u tools/tiny/train.py --state "$TINY_OUT/state-$mode" --out "$TINY_OUT/$mode" --seconds "$seconds" \
    --final-count 500 "$@" ${TINY_OPTIONS:-}
  cp tools/tiny/tokenizer.json "$TINY_OUT/$mode/"
  tar cJf - -C "$TINY_OUT" "$mode" | split -b 15m -d - "$TINY_OUT/$mode.tar.xz."
  date > "$TINY_OUT/$mode.done"
} >> "$TINY_OUT/$mode.log" 2>&1
