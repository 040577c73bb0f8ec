#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "sample/candidates.h"
#include "sample/random.h"
#include "sample/sampler_options.h"
#include "sample/token_set.h"
#include "tensor/strong.h"

// From the logits of one position to the next token.  Used by the engine after every step that
// needs a token, and by everything that reports log probabilities.
//
// A logit that is not finite belongs to no candidate: it is never chosen and weighs nothing.
// Equal logits rank by the lower id, everywhere.

namespace ds4::sample {

// One token with its place in the distribution at temperature 1.
struct TokenLogprob {
  TokenId token;
  float logit;
  double logprob;  // natural logarithm, from an f64 sum over all finite logits
};

// The most likely token among those that `allowed` (null: all) holds.  logits: [vocab].
// Throws Error(kInternal) when no candidate is left.
TokenId argmax(std::span<const float> logits, const TokenSet* allowed = nullptr);

// The same without `excluded`: what would have come if that token could not, e.g. the end token.
TokenId argmax_excluding(std::span<const float> logits, TokenId excluded);

// The most likely token of a set; the first of the equally likely.  Throws as argmax() does.
TokenId argmax(const CandidateSet& set);

// log(sum over finite logits of e^logit).  Throws Error(kInternal) when none is finite.
double log_sum_exp(std::span<const float> logits);

// Log probability of `token`; minus infinity when its logit is not finite.
double token_logprob(std::span<const float> logits, TokenId token);

// Draws tokens for one sequence: same seed, same logits, same options, same tokens.  Owns its
// scratch, so no call after construction allocates.  Confined to one thread.
class Sampler {
 public:
  // Reserves for rows of `vocab_size` logits.
  Sampler(std::size_t vocab_size, std::uint64_t seed);

  // The next token.  logits: [vocab_size].  Only tokens in `allowed` (null: all) can come.
  //
  // temperature 0 takes the argmax and draws no random number; otherwise exactly one is drawn:
  //   1. top_k > 0 keeps the top_k largest logits; the softmax below runs over these alone
  //   2. p = softmax(logits / temperature)
  //   3. min_p drops every p below min_p * max(p); top_p keeps the head of the ranking up to and
  //      including the token at which the cumulative p (of 2., not renormalised) reaches top_p
  //   4. one draw over what is left, renormalised
  // Out-of-range options are brought into range: top_p to 1, min_p to [0, 1], top_k to kTopKMax.
  // Cost: one pass over the logits, and an exponential for each candidate of step 2.
  TokenId sample(std::span<const float> logits,
                 const SamplingOptions& options,
                 const TokenSet* allowed = nullptr);

  // The same token as from the whole row that `set` was taken from for these options, with the same
  // random number; or none, and none drawn, when the set does not decide it: then sample() with the
  // logits does.
  std::optional<TokenId> sample(const CandidateSet& set, const SamplingOptions& options);

  // The `count` most likely tokens, likeliest first, at temperature 1 and without any cut; fewer
  // when fewer are finite, never more than kTopKMax.  Valid until the next call of this object.
  std::span<const TokenLogprob> top_logprobs(std::span<const float> logits, std::size_t count);

  // For exporting a sequence's exact state.
  const Random& random() const { return random_; }
  void set_random(Random random) { random_ = random; }

 private:
  struct Candidate {
    TokenId token;
    float logit;
    double weight;  // e^((logit - largest logit) / temperature): 1 for the likeliest
  };

  static bool ranks_before(const Candidate& a, const Candidate& b);
  void gather(std::span<const float> logits, const TokenSet* allowed);
  void keep_largest(std::size_t count);
  void weigh(float temperature);
  void drop_hopeless(float min_p, float temperature);
  void drop_below(double min_weight);
  double total_weight(std::size_t count) const;
  // How many candidates, likeliest first, have `mass` together, and whether they have.
  struct Head {
    std::size_t count;
    bool reached;
  };
  Head rank_until(double mass);
  TokenId draw(std::size_t count);

  std::size_t vocab_size_;
  Random random_;
  std::vector<Candidate> candidates_;  // capacity: vocab_size
  std::vector<TokenLogprob> top_;      // capacity: kTopKMax
};

}  // namespace ds4::sample
