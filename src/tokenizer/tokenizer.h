#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/strong.h"
#include "tokenizer/segment.h"
#include "tokenizer/vocabulary.h"

namespace ds4::tokenizer {

// Text to token ids and back: DeepSeek's pre-tokenizer and byte-level BPE over a vocabulary from a
// file.  Three ways in, by trust: encode_text() never yields a marker token, encode_rendered()
// yields those that a renderer placed, encode_with_special() yields any marker that the text
// spells.  Every byte string can be encoded, and decoding gives the same bytes back.  Time is
// linear in the text (times a logarithm within one unbroken word).  Immutable after construction:
// may be used from several threads.
class Tokenizer {
 public:
  // Throws Error(kBadFormat) when the vocabulary contradicts itself: a byte without a token, a
  // merge of unknown tokens, two ids for one text.
  explicit Tokenizer(const Vocabulary& vocabulary);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;
  ~Tokenizer();

  // Ids are 0 to size() - 1.
  std::size_t size() const;
  // Memory that it holds.
  std::uint64_t bytes() const;

  // --- encoding ---

  // Plain text: markers are ordinary characters.
  std::vector<TokenId> encode_text(std::string_view text) const;
  void append_text(std::vector<TokenId>& ids, std::string_view text) const;
  // A rendered prompt: texts as plain text, each marker as its id; markers are boundaries that no
  // token crosses.  Throws Error(kUnsupported) when the vocabulary lacks a marker.
  std::vector<TokenId> encode_rendered(const RenderedPrompt& prompt) const;
  // Trusted text: every marker of the vocabulary is recognised anywhere, the leftmost and then the
  // longest first.  Never for text from a user.
  std::vector<TokenId> encode_with_special(std::string_view text) const;

  // --- decoding ---

  // The bytes of a token: possibly a part of a UTF-8 character (see Utf8Holdback), empty for an
  // unused id and for one outside the vocabulary.  Lives as long as the Tokenizer.
  std::string_view token_bytes(TokenId id) const;
  std::string decode(std::span<const TokenId> ids) const;

  // --- markers ---

  // kUnused for an id outside the vocabulary.
  TokenKind kind(TokenId id) const;
  bool is_marker(TokenId id) const;
  // The id of the marker with this literal name, e.g. "<think>"; see markers.h.
  std::optional<TokenId> find_marker(std::string_view name) const;
  // The same; throws Error(kUnsupported), naming the marker, when there is none.
  TokenId marker(std::string_view name) const;
  TokenId bos() const;
  TokenId eos() const;

  // The id whose bytes are exactly `bytes` and which is not a marker.
  std::optional<TokenId> find_text_token(std::string_view bytes) const;

 private:
  struct Tables;
  void append_piece(std::vector<TokenId>& ids, std::string_view piece) const;
  bool is_self_encoding(std::uint32_t id) const;
  std::unique_ptr<const Tables> tables_;
};

// Throws Error(kBadFormat), with both numbers, unless the model's embedding has exactly one row for
// each token.
void check_vocabulary_rows(const Tokenizer& tokenizer, std::uint64_t embedding_rows);

}  // namespace ds4::tokenizer
