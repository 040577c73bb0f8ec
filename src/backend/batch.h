#pragma once
#include <cstdint>
#include <span>

#include "sample/candidates.h"
#include "tensor/strong.h"
#include "tensor/view.h"

namespace ds4 {

// One token to run: `position` must be the sequence's length at that moment.
struct BatchRow {
  TokenId token;
  Position position;
  SequenceId sequence;
  bool wants_logits = false;  // compute the output head for this row
};

// A ragged list of rows.  Rows of one sequence are consecutive and their positions ascend by one.
// A prefill chunk is many rows of one sequence; a decode step of eight users is eight rows of eight
// sequences; the two mix.
struct Batch {
  std::span<const BatchRow> rows;
};

// Where results go, in host memory.  Empty spans are not filled.
struct BatchOutputs {
  Rows logits = {};  // [rows with wants_logits, vocab_size], in row order
  // Instead of logits, from an executor that can (ExecutorInfo::candidate_rows_max): what the draws
  // of these rows depend on.  Both spans have one entry for every row with wants_logits; sets are
  // reserve()d.
  std::span<const sample::CandidateQuery> queries = {};
  std::span<sample::CandidateSet> candidates = {};
  Rows mtp_logits = {};  // [rows of position > 0, vocab_size]: of the MTP entry that each row's
                         // token completes, entry position - 1, in row order.  For tests.
  Rows hidden = {};  // [rows, stream_count * width]: the streams after the last layer of the slice
};

}  // namespace ds4
