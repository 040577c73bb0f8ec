#include "tokenizer/tokenizer.h"

#include <array>
#include <atomic>

#include <fmt/format.h>

#include "base/error.h"
#include "tokenizer/bpe.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/marker_trie.h"
#include "tokenizer/markers.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/text_index.h"

namespace ds4::tokenizer {
namespace {

// Whether merging the bytes of a text token gives that token: found out when it is first asked for.
enum : std::uint8_t { kNotKnown, kSelfEncoding, kSplits };

[[noreturn]] void fail(const std::string& problem) {
  throw Error(ErrorCode::kBadFormat, "the vocabulary is damaged: " + problem);
}

}  // namespace

struct Tokenizer::Tables {
  explicit Tables(const Vocabulary& vocabulary);
  void add_tokens(const Vocabulary& vocabulary);
  void index_tokens(const Vocabulary& vocabulary);
  void add_merges(const Vocabulary& vocabulary);
  std::string_view bytes_of(std::uint32_t id) const {
    return std::string_view(blob).substr(offsets[id], offsets[id + 1] - offsets[id]);
  }
  std::uint32_t text_token(std::string_view alphabet_text, std::string_view merge) const;

  std::string blob;                    // the bytes of all tokens, in order of id
  std::vector<std::uint32_t> offsets;  // [size + 1]
  std::vector<TokenKind> kinds;        // [size]
  TextIndex text_index;                // text tokens by their bytes
  TextIndex marker_index;              // the others by their literal names
  MarkerTrie markers;
  MergeTable merges;
  std::array<std::uint32_t, 256> byte_ids{};
  // A cache that several threads may fill at once, always with the same answer.
  std::unique_ptr<std::atomic<std::uint8_t>[]> self_encoding;  // [size]
};

Tokenizer::Tables::Tables(const Vocabulary& vocabulary)
    : kinds(vocabulary.kinds),
      text_index(vocabulary.tokens.size()),
      marker_index(vocabulary.tokens.size()),
      merges(vocabulary.merges.size()),
      self_encoding(new std::atomic<std::uint8_t>[vocabulary.tokens.size()]) {
  if (vocabulary.tokens.size() != vocabulary.kinds.size()) {
    fail(fmt::format("{} tokens but {} kinds", vocabulary.tokens.size(), vocabulary.kinds.size()));
  }
  if (vocabulary.tokens.size() > kVocabularyTokensMax) {
    fail(fmt::format("{} tokens, at most {} can be used", vocabulary.tokens.size(),
                     kVocabularyTokensMax));
  }
  for (std::size_t id = 0; id < kinds.size(); ++id)
    self_encoding[id] = kNotKnown;
  add_tokens(vocabulary);
  index_tokens(vocabulary);
  add_merges(vocabulary);
}

void Tokenizer::Tables::add_tokens(const Vocabulary& vocabulary) {
  const std::size_t count = vocabulary.tokens.size();
  offsets.reserve(count + 1);
  for (std::size_t id = 0; id < count; ++id) {
    offsets.push_back(static_cast<std::uint32_t>(blob.size()));
    const std::string& text = vocabulary.tokens[id];
    if (text.size() > kTokenBytesMax || blob.size() + text.size() > 0xFFFFFFFFu) {
      fail(fmt::format("token {} has {} bytes", id, text.size()));
    }
    switch (kinds[id]) {
      case TokenKind::kText:
        if (const auto bytes = alphabet_to_bytes(text); bytes && !bytes->empty()) {
          blob += *bytes;
        } else {
          fail(fmt::format("token {} ('{}') is not written in the byte alphabet", id, text));
        }
        break;
      case TokenKind::kAdded:
      case TokenKind::kControl:
        if (text.empty()) fail(fmt::format("marker token {} has no name", id));
        blob += text;
        break;
      case TokenKind::kUnused:
        break;
    }
  }
  offsets.push_back(static_cast<std::uint32_t>(blob.size()));
}

void Tokenizer::Tables::index_tokens(const Vocabulary& vocabulary) {
  for (std::uint32_t id = 0; id < kinds.size(); ++id) {
    if (kinds[id] == TokenKind::kUnused) continue;
    const bool is_text = kinds[id] == TokenKind::kText;
    const std::string_view bytes = bytes_of(id);
    if (!(is_text ? text_index : marker_index).add(bytes, id)) {
      fail(fmt::format("token {} repeats the text '{}' of another", id, vocabulary.tokens[id]));
    }
    if (!is_text) markers.add(bytes, id);
  }
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const auto id = text_index.find(std::string_view(&c, 1));
    if (!id) fail(fmt::format("it has no token for the byte 0x{:02x}", byte));
    byte_ids[byte] = *id;
  }
}

std::uint32_t Tokenizer::Tables::text_token(std::string_view alphabet_text,
                                            std::string_view merge) const {
  const auto bytes = alphabet_to_bytes(alphabet_text);
  const auto id = bytes ? text_index.find(*bytes) : std::nullopt;
  if (!id) fail(fmt::format("the merge '{}' names '{}', which is no token", merge, alphabet_text));
  return *id;
}

void Tokenizer::Tables::add_merges(const Vocabulary& vocabulary) {
  for (std::uint32_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const std::string& merge = vocabulary.merges[rank];
    const std::size_t space = merge.find(' ');
    if (space == std::string::npos || space == 0 || space + 1 == merge.size() ||
        merge.find(' ', space + 1) != std::string::npos) {
      fail(fmt::format("merge {} is '{}', expected two tokens and one space", rank, merge));
    }
    const std::string_view left = std::string_view(merge).substr(0, space);
    const std::string_view right = std::string_view(merge).substr(space + 1);
    const std::string product = std::string(left).append(right);
    // A rule that would spell a marker out of plain text is never followed.
    if (marker_index.find(product)) continue;
    merges.add(text_token(left, merge), text_token(right, merge),
               {rank, text_token(product, merge)});
  }
}

Tokenizer::Tokenizer(const Vocabulary& vocabulary)
    : tables_(std::make_unique<const Tables>(vocabulary)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

std::size_t Tokenizer::size() const {
  return tables_->kinds.size();
}

std::uint64_t Tokenizer::bytes() const {
  const Tables& t = *tables_;
  return sizeof(Tables) + t.blob.capacity() + t.offsets.capacity() * sizeof(t.offsets[0]) +
         t.kinds.capacity() * sizeof(t.kinds[0]) + t.text_index.bytes() + t.marker_index.bytes() +
         t.markers.bytes() + t.merges.bytes() + size() * sizeof(t.self_encoding[0]);
}

std::vector<TokenId> Tokenizer::encode_text(std::string_view text) const {
  std::vector<TokenId> ids;
  append_text(ids, text);
  return ids;
}

void Tokenizer::append_text(std::vector<TokenId>& ids, std::string_view text) const {
  PieceScanner scanner(text);
  for (std::string_view piece = scanner.next(); !piece.empty(); piece = scanner.next()) {
    append_piece(ids, piece);
  }
}

void Tokenizer::append_piece(std::vector<TokenId>& ids, std::string_view piece) const {
  const auto whole = tables_->text_index.find(piece);
  if (whole && is_self_encoding(*whole)) {
    ids.emplace_back(static_cast<std::int32_t>(*whole));
    return;
  }
  std::vector<std::uint32_t> parts;
  parts.reserve(piece.size());
  for (const char byte : piece) {
    parts.push_back(tables_->byte_ids[static_cast<std::uint8_t>(byte)]);
  }
  merge_piece(tables_->merges, parts);
  for (const std::uint32_t id : parts)
    ids.emplace_back(static_cast<std::int32_t>(id));
}

bool Tokenizer::is_self_encoding(std::uint32_t id) const {
  std::atomic<std::uint8_t>& known = tables_->self_encoding[id];
  std::uint8_t answer = known.load(std::memory_order_relaxed);
  if (answer == kNotKnown) {
    std::vector<std::uint32_t> parts;
    for (const char byte : tables_->bytes_of(id)) {
      parts.push_back(tables_->byte_ids[static_cast<std::uint8_t>(byte)]);
    }
    merge_piece(tables_->merges, parts);
    answer = parts.size() == 1 && parts[0] == id ? kSelfEncoding : kSplits;
    known.store(answer, std::memory_order_relaxed);
  }
  return answer == kSelfEncoding;
}

std::vector<TokenId> Tokenizer::encode_rendered(const RenderedPrompt& prompt) const {
  std::vector<TokenId> ids;
  for (const Segment& segment : prompt.segments()) {
    switch (segment.kind) {
      case SegmentKind::kText:
        append_text(ids, segment.text);
        break;
      case SegmentKind::kControl:
        ids.push_back(marker(segment.text));
        break;
    }
  }
  return ids;
}

std::vector<TokenId> Tokenizer::encode_with_special(std::string_view text) const {
  std::vector<TokenId> ids;
  std::size_t plain_begin = 0;
  for (std::size_t i = 0; i < text.size();) {
    const auto match = tables_->markers.match_front(text.substr(i));
    if (!match) {
      ++i;
      continue;
    }
    append_text(ids, text.substr(plain_begin, i - plain_begin));
    ids.emplace_back(static_cast<std::int32_t>(match->id));
    i += match->bytes;
    plain_begin = i;
  }
  append_text(ids, text.substr(plain_begin));
  return ids;
}

std::string_view Tokenizer::token_bytes(TokenId id) const {
  if (id.value() < 0 || static_cast<std::size_t>(id.value()) >= size()) return {};
  return tables_->bytes_of(static_cast<std::uint32_t>(id.value()));
}

std::string Tokenizer::decode(std::span<const TokenId> ids) const {
  std::string bytes;
  for (const TokenId id : ids)
    bytes += token_bytes(id);
  return bytes;
}

TokenKind Tokenizer::kind(TokenId id) const {
  if (id.value() < 0 || static_cast<std::size_t>(id.value()) >= size()) return TokenKind::kUnused;
  return tables_->kinds[static_cast<std::size_t>(id.value())];
}

bool Tokenizer::is_marker(TokenId id) const {
  const TokenKind k = kind(id);
  return k == TokenKind::kAdded || k == TokenKind::kControl;
}

std::optional<TokenId> Tokenizer::find_marker(std::string_view name) const {
  const auto id = tables_->marker_index.find(name);
  if (!id) return std::nullopt;
  return TokenId(static_cast<std::int32_t>(*id));
}

TokenId Tokenizer::marker(std::string_view name) const {
  if (const auto id = find_marker(name)) return *id;
  throw Error(
      ErrorCode::kUnsupported,
      fmt::format("this model's vocabulary has no token '{}', which the prompt needs", name));
}

TokenId Tokenizer::bos() const {
  return marker(kBosMarker);
}

TokenId Tokenizer::eos() const {
  return marker(kEosMarker);
}

std::optional<TokenId> Tokenizer::find_text_token(std::string_view bytes) const {
  const auto id = tables_->text_index.find(bytes);
  if (!id) return std::nullopt;
  return TokenId(static_cast<std::int32_t>(*id));
}

void check_vocabulary_rows(const Tokenizer& tokenizer, std::uint64_t embedding_rows) {
  if (tokenizer.size() == embedding_rows) return;
  throw Error(ErrorCode::kBadFormat,
              fmt::format("the tokenizer has {} tokens but the model's embedding has {} rows; they "
                          "do not belong together",
                          tokenizer.size(), embedding_rows));
}

}  // namespace ds4::tokenizer
