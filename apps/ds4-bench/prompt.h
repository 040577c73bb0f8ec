#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tensor/strong.h"

namespace ds4::bench {

// What the users' contexts are filled with.  Every user has tokens of its own: equal rows would
// choose equal experts and make a batch look cheaper than it is.  Immutable.
class Prompt {
 public:
  // Pseudo-random ids of a vocabulary of `vocab_size`, the same in every run.
  explicit Prompt(std::uint32_t vocab_size) : vocab_size_(vocab_size) {}
  // `tokens` over and over, each user starting elsewhere in them.
  explicit Prompt(std::vector<TokenId> tokens) : tokens_(std::move(tokens)) {}

  TokenId at(std::uint32_t position, std::uint32_t user) const;
  // Tokens that can be had without repetition; 0: as many as wanted.
  std::size_t length() const { return tokens_.size(); }

 private:
  std::uint32_t vocab_size_ = 0;
  std::vector<TokenId> tokens_;
};

// A text file to read, and as what.
struct PromptSource {
  std::filesystem::path file;
  bool chat = false;        // one user message, answered without reasoning; else plain text
  std::string system = {};  // before that message; empty: none
};

// The tokens of that text in the vocabulary of `model`.  Throws Error(kNotFound | kIo | kBadFormat)
// and, when they are fewer than `token_count`, Error(kInvalidArgument).
Prompt read_prompt(const std::filesystem::path& model,
                   const PromptSource& source,
                   std::size_t token_count);

}  // namespace ds4::bench
