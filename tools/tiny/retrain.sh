#!/bin/sh
# Trains in a fixed time and leaves what must be kept in files of at most 15 MiB.
#
#   TINY_OUT=DIR [CUDA_VISIBLE_DEVICES=N] tools/tiny/retrain.sh MODE [SECONDS]
#
# MODE is one of
#   scratch       from nothing;
#   refine        goes on from models/ds4-tiny.gguf, half of the tokens are requests to tools;
#   refine-third  the same with a third of them, at a higher rate;
#   refine-names  as refine, the names of tools and parameters weighted threefold and the rest of the text next to nothing.
# SECONDS (default 690) is the time until the last step, loading and compilation included; the export takes some seconds
# more, the scores of `scratch` about a minute. The others run without torch.compile, which takes minutes by itself.
# TINY_OPTIONS is passed on to train.py; TINY_START replaces the file that refining starts from; TINY_PACK=no leaves the
# checkpoint unpacked. Started again with the same DIR it goes on from the last state saved there.
# DIR gets MODE.log while it runs, then MODE/ (checkpoint, tokenizer, log), MODE.tar.xz.NN of it, and MODE.done; a
# training that failed leaves no MODE.done.
# To use them: cat DIR/MODE.tar.xz.* | tar xJ -C WHERE; mv WHERE/MODE WHERE/ds4-tiny (the file takes its name from it);
# ds4-gguf convert --hf WHERE/ds4-tiny --out FILE --quant mxfp4
set -eu
mode=${1:?scratch, refine, refine-third or refine-names}
seconds=${2:-690}
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
mkdir -p "$TINY_OUT"
TINY_OUT=$(CDPATH= cd "$TINY_OUT" && pwd)
cd "$here/../.."
start="--start ${TINY_START:-models/ds4-tiny.gguf} --no-compile --final-count 0 --eval-every 1000000 --workers 8"
case $mode in
  scratch) set -- --final-count 500 ;;
  refine) set -- $start --mixture tools --seed 2 --rate 0.4 --decay 0.85 --long-every 10 ;;
  refine-third) set -- $start --mixture tools-third --seed 3 --rate 0.8 --decay 0.8 --long-every 8 ;;
  refine-names) set -- $start --mixture names --seed 4 --rate 0.4 --decay 0.95 --long-every 10 ;;
  *) echo "retrain.sh: unknown training '$mode'" >&2; exit 2 ;;
esac
rm -f "$TINY_OUT/$mode.done"
{
  python3 -u tools/tiny/train.py --state "$TINY_OUT/state-$mode" --out "$TINY_OUT/$mode" --seconds "$seconds" \
    "$@" ${TINY_OPTIONS:-}
  cp tools/tiny/tokenizer.json "$TINY_OUT/$mode/"
  if [ "${TINY_PACK:-yes}" = yes ]; then
    tar cJf - -C "$TINY_OUT" "$mode" | split -b 15m -d - "$TINY_OUT/$mode.tar.xz."
  fi
  date > "$TINY_OUT/$mode.done"
} >> "$TINY_OUT/$mode.log" 2>&1
