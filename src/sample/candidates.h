#pragma once
#include <cstddef>
#include <vector>

#include "sample/sampler_options.h"
#include "tensor/strong.h"

namespace ds4::sample {

// How a row's next token will be drawn: what a device needs to know to hand over, instead of all
// logits, the few that the draw depends on.
struct CandidateQuery {
  SamplingOptions options;
  TokenId excluded{-1};  // can't come; -1: every token can
};

// At most this many tokens of a row are handed over.
inline constexpr std::size_t kCandidatesMax = 1024;

// The part of a row's logits that a draw depends on.  A device may hand over more than is needed,
// never less without saying so.
struct CandidateSet {
  struct Entry {
    TokenId token;
    float logit;
  };
  // Ascending ids.  With temperature 0 the most likely token alone.
  std::vector<Entry> entries;
  // Sum over the finite logits of the row of e^((logit - largest) / temperature), to within
  // kTotalError of itself; 0 with temperature 0.
  double total = 0;
  // False: more tokens than fit may come; the draw needs the logits.
  bool complete = false;
  // Whether every token that min-p keeps is among the entries.
  bool holds_min_p = false;

  static constexpr double kTotalError = 1e-9;

  // Room for everything, so that filling it allocates nothing.
  void reserve() { entries.reserve(kCandidatesMax); }
};

}  // namespace ds4::sample
