#include "sample/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "base/error.h"

namespace ds4::sample {

namespace {

// The ranking is made in pieces, this many tokens first and then this many times as many, because a
// top-p cut rarely reaches far into a vocabulary of 129,280.
constexpr std::size_t kFirstPiece = 64;
constexpr std::size_t kPieceGrowth = 8;

// Logits this far (in units of temperature) below the min-p threshold need no exponential; the
// slack is far larger than the rounding of log and far smaller than any difference that matters.
constexpr double kThresholdSlack = 1e-6;

bool is_candidate(std::span<const float> logits, std::size_t id, const TokenSet* allowed) {
  return std::isfinite(logits[id]) &&
         (allowed == nullptr || allowed->contains(TokenId{static_cast<std::int32_t>(id)}));
}

[[noreturn]] void throw_no_candidate() {
  throw Error(ErrorCode::kInternal,
              "no token can follow: no logit is finite among the allowed tokens; the model file or "
              "the device has produced invalid numbers, or the output constraint allows nothing");
}

void require(bool holds, const char* field, double value, const char* range) {
  if (holds) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("{} is {}: it must be {}", field, value, range));
}

SamplingOptions brought_into_range(SamplingOptions options) {
  if (!(options.temperature > 0)) options.temperature = 0;
  options.top_k = std::clamp(options.top_k, 0, kTopKMax);
  if (!(options.top_p > 0 && options.top_p <= 1)) options.top_p = 1;
  options.min_p = options.min_p > 0 ? std::min(options.min_p, 1.0F) : 0.0F;
  return options;
}

// First maximum over the candidates other than `excluded`; -1 excludes none.
TokenId first_maximum(std::span<const float> logits,
                      const TokenSet* allowed,
                      std::int32_t excluded) {
  std::int32_t best = -1;
  for (std::size_t id = 0; id < logits.size(); ++id) {
    if (best >= 0 && !(logits[id] > logits[static_cast<std::size_t>(best)])) continue;
    if (static_cast<std::int32_t>(id) == excluded || !is_candidate(logits, id, allowed)) continue;
    best = static_cast<std::int32_t>(id);
  }
  if (best < 0) throw_no_candidate();
  return TokenId{best};
}

}  // namespace

void SamplingOptions::validate() const {
  require(temperature >= 0 && std::isfinite(temperature), "temperature", temperature,
          "a number of at least 0 (0 always takes the most likely token)");
  require(top_k >= 0, "top_k", top_k, "0 (off) or more");
  require(top_p > 0 && top_p <= 1, "top_p", top_p, "greater than 0 and at most 1 (1 is off)");
  require(min_p >= 0 && min_p <= 1, "min_p", min_p, "from 0 (off) to 1");
}

TokenId argmax(std::span<const float> logits, const TokenSet* allowed) {
  return first_maximum(logits, allowed, -1);
}

TokenId argmax_excluding(std::span<const float> logits, TokenId excluded) {
  return first_maximum(logits, nullptr, excluded.value());
}

TokenId argmax(const CandidateSet& set) {
  if (set.entries.empty()) throw_no_candidate();
  const CandidateSet::Entry* best = &set.entries.front();
  for (const CandidateSet::Entry& entry : set.entries)
    if (entry.logit > best->logit) best = &entry;
  return best->token;
}

double log_sum_exp(std::span<const float> logits) {
  const TokenId best = argmax(logits);
  const double largest = logits[static_cast<std::size_t>(best.value())];
  double sum = 0;
  for (const float logit : logits) {
    if (std::isfinite(logit)) sum += std::exp(logit - largest);
  }
  return largest + std::log(sum);
}

double token_logprob(std::span<const float> logits, TokenId token) {
  const auto id = static_cast<std::size_t>(token.value());
  DS4_CHECK(token.value() >= 0 && id < logits.size());
  const float logit = logits[id];
  if (!std::isfinite(logit)) return -std::numeric_limits<double>::infinity();
  return logit - log_sum_exp(logits);
}

Sampler::Sampler(std::size_t vocab_size, std::uint64_t seed)
    : vocab_size_(vocab_size),
      random_(seed) {
  candidates_.reserve(vocab_size);
  top_.reserve(kTopKMax);
}

bool Sampler::ranks_before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// Candidates in ascending order of id.
void Sampler::gather(std::span<const float> logits, const TokenSet* allowed) {
  DS4_CHECK(logits.size() == vocab_size_);
  candidates_.clear();
  for (std::size_t id = 0; id < logits.size(); ++id) {
    if (!is_candidate(logits, id, allowed)) continue;
    candidates_.push_back({TokenId{static_cast<std::int32_t>(id)}, logits[id], 0});
  }
  if (candidates_.empty()) throw_no_candidate();
}

void Sampler::keep_largest(std::size_t count) {
  if (count >= candidates_.size()) return;
  const auto cut = candidates_.begin() + static_cast<std::ptrdiff_t>(count);
  std::nth_element(candidates_.begin(), cut, candidates_.end(), ranks_before);
  candidates_.erase(cut, candidates_.end());
  // Back in order of id: sums over candidates then do not depend on what the cut dropped.
  std::sort(candidates_.begin(), candidates_.end(),
            [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
}

void Sampler::weigh(float temperature) {
  const double largest =
      std::min_element(candidates_.begin(), candidates_.end(), ranks_before)->logit;
  for (Candidate& candidate : candidates_)
    candidate.weight = std::exp((candidate.logit - largest) / temperature);
}

// Removes, without an exponential each, candidates whose weight cannot reach `min_p`.
void Sampler::drop_hopeless(float min_p, float temperature) {
  if (min_p <= 0) return;
  const double largest =
      std::min_element(candidates_.begin(), candidates_.end(), ranks_before)->logit;
  const double lowest =
      largest + temperature * (std::log(static_cast<double>(min_p)) - kThresholdSlack);
  std::erase_if(candidates_, [lowest](const Candidate& c) { return c.logit < lowest; });
}

// The likeliest candidate weighs 1, so it always stays.
void Sampler::drop_below(double min_weight) {
  std::erase_if(candidates_, [min_weight](const Candidate& c) { return c.weight < min_weight; });
}

double Sampler::total_weight(std::size_t count) const {
  double total = 0;
  for (std::size_t i = 0; i < count; ++i)
    total += candidates_[i].weight;
  return total;
}

// Brings to the front, in order of rank, the candidates up to and including the one at which the
// cumulative weight reaches `mass`.
Sampler::Head Sampler::rank_until(double mass) {
  double cumulative = 0;
  std::size_t ranked = 0;
  for (std::size_t kept = 0; kept < candidates_.size(); ++kept) {
    if (kept == ranked) {
      ranked = std::min(candidates_.size(), std::max(kFirstPiece, ranked * kPieceGrowth));
      const auto begin = candidates_.begin() + static_cast<std::ptrdiff_t>(kept);
      const auto end = candidates_.begin() + static_cast<std::ptrdiff_t>(ranked);
      std::nth_element(begin, end, candidates_.end(), ranks_before);
      std::sort(begin, end, ranks_before);
    }
    cumulative += candidates_[kept].weight;
    if (cumulative >= mass) return {kept + 1, true};
  }
  return {candidates_.size(), false};
}

// One draw over the first `count` candidates.
TokenId Sampler::draw(std::size_t count) {
  double rest = random_.uniform() * total_weight(count);
  for (std::size_t i = 0; i < count; ++i) {
    rest -= candidates_[i].weight;
    if (rest <= 0) return candidates_[i].token;
  }
  return candidates_[count - 1].token;  // rounding left a crumb of the mass over
}

TokenId Sampler::sample(std::span<const float> logits,
                        const SamplingOptions& options,
                        const TokenSet* allowed) {
  const SamplingOptions limits = brought_into_range(options);
  if (limits.temperature <= 0) return argmax(logits, allowed);
  gather(logits, allowed);
  if (limits.top_k == 0 && limits.top_p >= 1) {
    // The only cut is min-p, which needs no ranking and no total: the draw runs in order of id.
    drop_hopeless(limits.min_p, limits.temperature);
    weigh(limits.temperature);
    drop_below(limits.min_p);
    return draw(candidates_.size());
  }
  if (limits.top_k > 0) keep_largest(static_cast<std::size_t>(limits.top_k));
  weigh(limits.temperature);
  const double total = total_weight(candidates_.size());
  drop_below(limits.min_p);
  return draw(rank_until(limits.top_p * total).count);
}

std::optional<TokenId> Sampler::sample(const CandidateSet& set, const SamplingOptions& options) {
  const SamplingOptions limits = brought_into_range(options);
  if (!set.complete) return std::nullopt;
  if (limits.temperature <= 0) return argmax(set);
  candidates_.clear();
  for (const CandidateSet::Entry& entry : set.entries)
    candidates_.push_back({entry.token, entry.logit, 0});
  if (candidates_.empty()) throw_no_candidate();
  if (limits.top_k == 0 && limits.top_p >= 1) {
    if (!set.holds_min_p) return std::nullopt;
    drop_hopeless(limits.min_p, limits.temperature);
    weigh(limits.temperature);
    drop_below(limits.min_p);
    return draw(candidates_.size());
  }
  if (limits.top_k > 0) {
    keep_largest(static_cast<std::size_t>(limits.top_k));
    weigh(limits.temperature);
    const double total = total_weight(candidates_.size());
    drop_below(limits.min_p);
    return draw(rank_until(limits.top_p * total).count);
  }
  // The total is known to a relative error: decided where both ends of it cut at the same token.
  weigh(limits.temperature);
  drop_below(limits.min_p);
  const Head least = rank_until(limits.top_p * set.total * (1 - CandidateSet::kTotalError));
  const Head most = rank_until(limits.top_p * set.total * (1 + CandidateSet::kTotalError));
  if (least.count != most.count || (!most.reached && !set.holds_min_p)) return std::nullopt;
  return draw(most.count);
}

std::span<const TokenLogprob> Sampler::top_logprobs(std::span<const float> logits,
                                                    std::size_t count) {
  const double log_total = log_sum_exp(logits);
  gather(logits, nullptr);
  keep_largest(std::min<std::size_t>(count, kTopKMax));
  std::sort(candidates_.begin(), candidates_.end(), ranks_before);
  top_.clear();
  for (const Candidate& candidate : candidates_)
    top_.push_back({candidate.token, candidate.logit, candidate.logit - log_total});
  return top_;
}

}  // namespace ds4::sample
