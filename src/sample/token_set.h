#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tensor/strong.h"

namespace ds4::sample {

// A set of tokens of one vocabulary, one bit each: what a structured-output constraint allows next.
// Confined to one thread.
class TokenSet {
 public:
  // An empty set over ids 0 .. vocab_size - 1.
  explicit TokenSet(std::size_t vocab_size);

  std::size_t vocab_size() const { return vocab_size_; }

  // `token` must lie in the vocabulary.
  void insert(TokenId token);
  void erase(TokenId token);

  // Adds a whole set given as bits, 64 ids a word; at most the vocabulary's words.
  void insert_words(std::span<const std::uint64_t> words);

  void insert_all();
  void clear();

  // False for every id outside the vocabulary.
  bool contains(TokenId token) const;

  // How many tokens the set holds.  Cost: one pass over vocab_size / 64 words.
  std::size_t count() const;

 private:
  std::size_t vocab_size_;
  std::vector<std::uint64_t> words_;  // [ceil(vocab_size / 64)], bits past the vocabulary are 0
};

}  // namespace ds4::sample
