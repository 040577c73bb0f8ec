#include "sample/token_set.h"

#include <algorithm>
#include <bit>

#include "base/error.h"

namespace ds4::sample {

namespace {
constexpr std::size_t kWordBits = 64;

std::uint64_t bit_of(std::size_t id) {
  return std::uint64_t{1} << (id % kWordBits);
}
}  // namespace

TokenSet::TokenSet(std::size_t vocab_size)
    : vocab_size_(vocab_size),
      words_((vocab_size + kWordBits - 1) / kWordBits) {}

void TokenSet::insert(TokenId token) {
  const auto id = static_cast<std::size_t>(token.value());
  DS4_CHECK(token.value() >= 0 && id < vocab_size_);
  words_[id / kWordBits] |= bit_of(id);
}

void TokenSet::erase(TokenId token) {
  const auto id = static_cast<std::size_t>(token.value());
  DS4_CHECK(token.value() >= 0 && id < vocab_size_);
  words_[id / kWordBits] &= ~bit_of(id);
}

void TokenSet::insert_words(std::span<const std::uint64_t> words) {
  DS4_CHECK(words.size() <= words_.size());
  for (std::size_t i = 0; i < words.size(); ++i)
    words_[i] |= words[i];
}

void TokenSet::insert_all() {
  std::fill(words_.begin(), words_.end(), ~std::uint64_t{0});
  const std::size_t tail_bits = vocab_size_ % kWordBits;
  if (tail_bits != 0) words_.back() = bit_of(tail_bits) - 1;
}

void TokenSet::clear() {
  std::fill(words_.begin(), words_.end(), std::uint64_t{0});
}

bool TokenSet::contains(TokenId token) const {
  const auto id = static_cast<std::size_t>(token.value());
  if (token.value() < 0 || id >= vocab_size_) return false;
  return (words_[id / kWordBits] & bit_of(id)) != 0;
}

std::size_t TokenSet::count() const {
  std::size_t count = 0;
  for (const std::uint64_t word : words_)
    count += static_cast<std::size_t>(std::popcount(word));
  return count;
}

}  // namespace ds4::sample
