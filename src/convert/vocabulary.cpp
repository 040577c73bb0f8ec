#include "convert/vocabulary.h"

#include <array>
#include <string_view>

#include <fmt/format.h>

#include "base/error.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/markers.h"

namespace ds4::convert {

namespace {

using tokenizer::TokenKind;
using tokenizer::Vocabulary;

constexpr std::uint32_t kPublishedVocabSize = 129280;
constexpr std::uint32_t kFirstByteId = 3;  // after BOS, EOS and padding
constexpr std::uint32_t kByteCount = 256;

struct Marker {
  std::uint32_t id;  // in the published vocabulary
  std::string_view text;
};
// The added tokens that chat, tools and tasks need by name.
constexpr std::array kMarkers = {Marker{128800, "<｜fim▁hole｜>"},
                                 Marker{128801, "<｜fim▁begin｜>"},
                                 Marker{128802, "<｜fim▁end｜>"},
                                 Marker{128803, tokenizer::kUserMarker},
                                 Marker{128804, tokenizer::kAssistantMarker},
                                 Marker{128805, "<|EOT|>"},
                                 Marker{128821, tokenizer::kThinkMarker},
                                 Marker{128822, tokenizer::kThinkEndMarker},
                                 Marker{128825, tokenizer::kDsmlMarker},
                                 Marker{128826, "<｜begin▁sys｜>"},
                                 Marker{128827, "<｜end▁sys｜>"},
                                 Marker{128828, tokenizer::kLatestReminderMarker},
                                 Marker{128829, tokenizer::kActionMarker},
                                 Marker{128830, tokenizer::kQueryMarker},
                                 Marker{128831, tokenizer::kAuthorityMarker},
                                 Marker{128832, tokenizer::kDomainMarker},
                                 Marker{128836, tokenizer::kTitleMarker},
                                 Marker{128840, "<dsml:"},
                                 Marker{128841, "</dsml:"},
                                 Marker{128845, tokenizer::kReadUrlMarker}};

void resize(Vocabulary& vocabulary, std::uint32_t vocab_size) {
  vocabulary.tokens.resize(vocab_size);
  vocabulary.kinds.resize(vocab_size, TokenKind::kUnused);
}

}  // namespace

Vocabulary read_vocabulary(const std::filesystem::path& path, std::uint32_t vocab_size) {
  Vocabulary vocabulary = tokenizer::load_tokenizer_json(path);
  if (vocabulary.tokens.size() > vocab_size) {
    throw Error(ErrorCode::kBadFormat,
                fmt::format("{} has {} tokens, but the model has {}; they do not belong together",
                            path.string(), vocabulary.tokens.size(), vocab_size));
  }
  resize(vocabulary, vocab_size);
  return vocabulary;
}

Vocabulary byte_vocabulary(std::uint32_t vocab_size) {
  constexpr std::uint32_t kLeast = kFirstByteId + kByteCount + std::uint32_t{kMarkers.size()};
  if (vocab_size < kLeast) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("a vocabulary of {} tokens has no room for 256 bytes and the markers; at "
                    "least {} are needed",
                    vocab_size, kLeast));
  }
  Vocabulary vocabulary;
  resize(vocabulary, vocab_size);
  const auto add = [&](std::uint32_t id, std::string_view text, TokenKind kind) {
    vocabulary.tokens[id] = text;
    vocabulary.kinds[id] = kind;
  };
  add(0, tokenizer::kBosMarker, TokenKind::kControl);
  add(1, tokenizer::kEosMarker, TokenKind::kControl);
  add(2, tokenizer::kPadMarker, TokenKind::kControl);
  for (std::uint32_t byte = 0; byte < kByteCount; ++byte) {
    const auto character = static_cast<char>(byte);
    add(kFirstByteId + byte, tokenizer::bytes_to_alphabet({&character, 1}), TokenKind::kText);
  }
  std::uint32_t next = kFirstByteId + kByteCount;
  for (const Marker& marker : kMarkers)
    add(vocab_size >= kPublishedVocabSize ? marker.id : next++, marker.text, TokenKind::kAdded);
  return vocabulary;
}

}  // namespace ds4::convert
