// The trained small model: greedy answers of the card against the processor's, of many sequences
// together against each alone, and with drafts against without.
//
// The two backends round differently (cuda_contract_test.cpp says where), so where two tokens are
// almost equally likely they may choose differently.  Such a divergence is explained when the
// processor's own logits put the card's choice less than kMarginMax behind its own: the answers are
// compared token by token along the processor's answer, so that one divergence does not hide the
// next, and every divergence is printed with its margin.
#include <algorithm>
#include <cstdio>

#include <gtest/gtest.h>

#include "cuda/matvec.h"
#include "engine/session.h"
#include "sample/sampler.h"
#include "tiny_pair.h"

namespace ds4 {
namespace {

using test::kQuestions;
using test::TinyPair;

constexpr std::uint32_t kAnswerTokens = 200;
constexpr std::uint32_t kContext = 512;
// Logits of this model reach 30; f16 inputs of attention and tiles move them by some 1e-3 of that,
// a rounded code or an expert chosen otherwise by more.
constexpr float kMarginMax = 0.25F;

#define SKIP_WITHOUT_CARD() \
  if (cuda::card_count() == 0) GTEST_SKIP() << "no CUDA device on this machine"

// Sequences of one executor that are given tokens in step.
class Answers {
 public:
  Answers(Executor& executor, const std::vector<std::vector<TokenId>>& prompts, TokenId end)
      : executor_(executor),
        end_(end),
        vocab_(executor.config().vocab_size),
        logits_(prompts.size() * vocab_) {
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      sequences_.push_back(executor.open_sequence(kContext));
      std::vector<BatchRow> rows;
      for (std::uint32_t p = 0; p < prompts[i].size(); ++p)
        rows.push_back({prompts[i][p], Position{p}, sequences_[i], p + 1 == prompts[i].size()});
      executor.run({rows}, {.logits = Rows(logits_.data() + i * vocab_, {1, vocab_})});
    }
  }
  Answers(const Answers&) = delete;
  Answers& operator=(const Answers&) = delete;
  ~Answers() {
    for (const SequenceId sequence : sequences_)
      executor_.close_sequence(sequence);
  }

  std::span<const float> logits(std::size_t i) const {
    return std::span(logits_).subspan(i * vocab_, vocab_);
  }
  std::vector<TokenId> choices() const {
    std::vector<TokenId> tokens;
    for (std::size_t i = 0; i < sequences_.size(); ++i)
      tokens.push_back(sample::argmax_excluding(logits(i), end_));
    return tokens;
  }
  // Appends a token to every sequence, `at_once` of them in one batch.
  void append(const std::vector<TokenId>& tokens, std::size_t at_once) {
    for (std::size_t first = 0; first < tokens.size(); first += at_once) {
      const std::size_t end = std::min(tokens.size(), first + at_once);
      std::vector<BatchRow> rows;
      for (std::size_t i = first; i < end; ++i)
        rows.push_back({tokens[i], Position{executor_.length(sequences_[i])}, sequences_[i], true});
      executor_.run({rows},
                    {.logits = Rows(logits_.data() + first * vocab_, {rows.size(), vocab_})});
    }
  }

 private:
  Executor& executor_;
  TokenId end_;
  std::size_t vocab_;
  std::vector<float> logits_;
  std::vector<SequenceId> sequences_;
};

std::vector<std::vector<TokenId>> prompts_of(const TinyPair& pair, std::size_t count) {
  std::vector<std::vector<TokenId>> prompts;
  for (std::size_t i = 0; i < count; ++i)
    prompts.push_back(pair.ask(kQuestions[i % kQuestions.size()]));
  return prompts;
}

// How far behind its best `logits` put `token`.
float margin(std::span<const float> logits, TokenId best, TokenId token) {
  return logits[static_cast<std::size_t>(best.value())] -
         logits[static_cast<std::size_t>(token.value())];
}

// Compares choices; prints each that differs and returns how many did.
std::uint32_t explain(const char* what,
                      std::uint32_t step,
                      const Answers& expected,
                      const Answers& found) {
  const std::vector<TokenId> a = expected.choices();
  const std::vector<TokenId> b = found.choices();
  std::uint32_t differ = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    ++differ;
    const float behind = margin(expected.logits(i), a[i], b[i]);
    std::printf("%s: prompt %zu, token %u: %d, not %d; margin %.4f of %.2f\n", what, i, step,
                b[i].value(), a[i].value(), behind, kMarginMax);
    EXPECT_LT(behind, kMarginMax) << what << ", prompt " << i << ", token " << step;
  }
  return differ;
}

TEST(CudaGreedy, ChoosesAsTheProcessorDoes) {
  SKIP_WITHOUT_CARD();
  TinyPair pair;
  const auto prompts = prompts_of(pair, kQuestions.size());
  const TokenId end = pair.tokenizer->eos();
  Answers cpu(*pair.cpu, prompts, end);
  Answers cuda(*pair.cuda, prompts, end);
  std::uint32_t differ = 0;
  double largest = 0;
  for (std::uint32_t t = 0; t < kAnswerTokens; ++t) {
    differ += explain("card", t, cpu, cuda);
    for (std::size_t i = 0; i < prompts.size(); ++i)
      for (std::size_t k = 0; k < cpu.logits(i).size(); ++k)
        largest = std::max<double>(largest, std::abs(cpu.logits(i)[k] - cuda.logits(i)[k]));
    const std::vector<TokenId> tokens = cpu.choices();
    cpu.append(tokens, tokens.size());
    cuda.append(tokens, 1);
  }
  std::printf("card: %u of %zu choices differ; largest difference of a logit %.4f\n", differ,
              prompts.size() * kAnswerTokens, largest);
}

// `at_once` sequences in one step, each as it is alone: to the bit where both go through the
// kernels for few rows, else with the margins of their rounding.
void compare_batch(std::uint32_t sequences, std::uint32_t tokens_each) {
  TinyPair pair;
  const auto executor = pair.make_cuda();
  const auto prompts = prompts_of(pair, sequences);
  const TokenId end = pair.tokenizer->eos();
  Answers alone(*pair.cuda, prompts, end);
  Answers together(*executor, prompts, end);
  const bool exact = sequences <= cuda::kMatvecRowsMax;
  std::uint32_t differ = 0;
  for (std::uint32_t t = 0; t < tokens_each; ++t) {
    differ += explain("batch", t, alone, together);
    for (std::size_t i = 0; exact && i < prompts.size(); ++i)
      ASSERT_TRUE(std::ranges::equal(alone.logits(i), together.logits(i)))
          << "sequence " << i << " of " << sequences << ", token " << t;
    const std::vector<TokenId> tokens = alone.choices();
    alone.append(tokens, 1);
    together.append(tokens, sequences);
  }
  std::printf("batch of %u: %u of %u choices differ\n", sequences, differ, sequences * tokens_each);
}

TEST(CudaGreedy, TwoSequencesDecodeAsEachAlone) {
  SKIP_WITHOUT_CARD();
  compare_batch(2, 100);
}

TEST(CudaGreedy, EightSequencesDecodeAsEachAlone) {
  SKIP_WITHOUT_CARD();
  compare_batch(8, 60);
}

TEST(CudaGreedy, ThirtyTwoSequencesDecodeAsEachAlone) {
  SKIP_WITHOUT_CARD();
  compare_batch(32, 40);
}

// An engine around an executor of the pair.
Engine engine_of(const TinyPair& pair) {
  return Engine({.path = "models/ds4-tiny.gguf",
                 .name = "ds4-tiny",
                 .quantisation = {},
                 .fingerprint = {},
                 .file_bytes = 0},
                pair.make_cuda(), pair.tokenizer, nullptr);
}

// Greedy tokens after `prompt`; with drafts, in passes of up to 1 + drafts tokens.
std::vector<TokenId> answer(Engine& engine,
                            std::span<const TokenId> prompt,
                            std::uint32_t drafts,
                            std::uint32_t* passes) {
  Session session(engine, {.context = kContext});
  sample::Sampler sampler(engine.config().vocab_size, 1);
  session.sync(prompt);
  const TokenId end = engine.tokenizer().eos();
  std::vector<TokenId> tokens;
  while (tokens.size() < kAnswerTokens) {
    const TokenId next = session.draw(sampler, sample::SamplingOptions::greedy());
    if (next == end) break;
    // Without drafts this is Session::eval(), from whole rows of logits.
    const auto taken = session.eval_speculative(next, drafts, end);
    tokens.insert(tokens.end(), taken.begin(), taken.end());
    ++*passes;
    if (tokens.back() == end) break;
  }
  tokens.resize(std::min<std::size_t>(tokens.size(), kAnswerTokens));
  return tokens;
}

TEST(CudaGreedy, DraftsChangeNoToken) {
  SKIP_WITHOUT_CARD();
  const TinyPair pair;
  ASSERT_TRUE(pair.cuda->info().has_mtp);
  Engine engine = engine_of(pair);
  for (const std::uint32_t drafts : {1U, 2U, 5U}) {
    std::uint32_t passes = 0;
    std::uint32_t plain_passes = 0;
    std::size_t count = 0;
    for (const std::string_view question : kQuestions) {
      const auto prompt = pair.ask(question);
      auto expected = answer(engine, prompt, 0, &plain_passes);
      auto found = answer(engine, prompt, drafts, &passes);
      if (!found.empty() && found.back() == pair.tokenizer->eos()) found.pop_back();
      EXPECT_EQ(expected, found) << question << ", " << drafts << " drafts";
      count += found.size();
    }
    std::printf("%u drafts: %zu tokens in %u passes, %.2f a pass; without %u passes\n", drafts,
                count, passes, static_cast<double>(count) / passes, plain_passes);
    EXPECT_LT(passes, plain_passes) << "no draft was ever accepted";
  }
}

}  // namespace
}  // namespace ds4
