#include <algorithm>
#include <array>
#include <fstream>
#include <unordered_set>

#include <fmt/format.h>

#include "base/error.h"
#include "gguf/reader.h"
#include "gguf/writer.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/markers.h"
#include "tokenizer/vocabulary.h"

namespace ds4::tokenizer {
namespace {

// The values of tokenizer.ggml.token_type.
enum : std::int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControlType = 3,
  kUserDefined = 4,
  kUnusedType = 5
};

// Names under which files announce this pre-tokenizer.
constexpr std::string_view kPreTokenizers[] = {"joyai-llm", "deepseek-v3", "deepseek-v3.1",
                                               "deepseek-v4"};

void check_kind_of_tokenizer(const gguf::Reader& file) {
  const auto model = file.find_string("tokenizer.ggml.model");
  if (model && *model != "gpt2") {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{}: tokenizer.ggml.model is '{}', expected 'gpt2' (byte-level BPE)",
                            file.name(), *model));
  }
  const auto pre = file.find_string("tokenizer.ggml.pre");
  if (pre && std::find(std::begin(kPreTokenizers), std::end(kPreTokenizers), *pre) ==
                 std::end(kPreTokenizers)) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{}: tokenizer.ggml.pre is '{}', expected one of {}", file.name(), *pre,
                            fmt::join(kPreTokenizers, ", ")));
  }
}

void check_count(const gguf::Reader& file, std::uint64_t count, std::uint64_t limit) {
  if (count <= limit) return;
  throw Error(ErrorCode::kBadFormat,
              fmt::format("{}: {} entries in the tokenizer, at most {} can be used", file.name(),
                          count, limit));
}

bool is_single_byte(std::string_view text) {
  const auto bytes = alphabet_to_bytes(text);
  return bytes && bytes->size() == 1;
}

TokenKind kind_of(std::int32_t type, bool is_reachable) {
  if (type == kUnusedType) return TokenKind::kUnused;
  if (type == kControlType) return TokenKind::kControl;
  if (type == kUserDefined || type == kUnknown || !is_reachable) return TokenKind::kAdded;
  return TokenKind::kText;
}

void set_marker_id(gguf::Writer& file,
                   const Vocabulary& vocabulary,
                   const char* key,
                   std::string_view marker) {
  const auto place = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), marker);
  if (place == vocabulary.tokens.end()) return;
  file.set_u32(key, static_cast<std::uint32_t>(place - vocabulary.tokens.begin()));
}

}  // namespace

Vocabulary read_gguf_vocabulary(const gguf::Reader& file) {
  check_kind_of_tokenizer(file);
  const gguf::StringArray tokens = file.get_strings("tokenizer.ggml.tokens");
  const gguf::StringArray merges = file.get_strings("tokenizer.ggml.merges");
  check_count(file, tokens.size(), kVocabularyTokensMax);
  check_count(file, merges.size(), kVocabularyTokensMax);
  const auto types = file.find_i32_array("tokenizer.ggml.token_type");
  if (types && types->size() != tokens.size()) {
    throw Error(ErrorCode::kBadFormat, fmt::format("{}: {} tokens but {} token types", file.name(),
                                                   tokens.size(), types->size()));
  }
  Vocabulary vocabulary;
  vocabulary.merges.reserve(merges.size());
  std::unordered_set<std::string> products;
  products.reserve(merges.size());
  for (const std::string_view merge : merges) {
    vocabulary.merges.emplace_back(merge);
    std::string product(merge);
    std::erase(product, ' ');
    products.insert(std::move(product));
  }
  vocabulary.tokens.reserve(tokens.size());
  vocabulary.kinds.reserve(tokens.size());
  std::size_t id = 0;
  for (const std::string_view token : tokens) {
    const std::int32_t type = types ? (*types)[id] : kNormal;
    std::string text(token);
    const bool is_reachable = products.count(text) > 0 || is_single_byte(text);
    vocabulary.kinds.push_back(kind_of(type, is_reachable));
    vocabulary.tokens.push_back(std::move(text));
    ++id;
  }
  return vocabulary;
}

void write_gguf_vocabulary(gguf::Writer& file, const Vocabulary& vocabulary) {
  std::vector<std::int32_t> types;
  types.reserve(vocabulary.kinds.size());
  for (const TokenKind kind : vocabulary.kinds) {
    switch (kind) {
      case TokenKind::kText:
        types.push_back(kNormal);
        break;
      case TokenKind::kAdded:
        types.push_back(kUserDefined);
        break;
      case TokenKind::kControl:
        types.push_back(kControlType);
        break;
      case TokenKind::kUnused:
        types.push_back(kUnusedType);
        break;
    }
  }
  file.set_string("tokenizer.ggml.model", "gpt2");
  file.set_string("tokenizer.ggml.pre", kPreTokenizers[0]);
  file.set_string_array("tokenizer.ggml.tokens", vocabulary.tokens);
  file.set_string_array("tokenizer.ggml.merges", vocabulary.merges);
  file.set_i32_array("tokenizer.ggml.token_type", types);
  set_marker_id(file, vocabulary, "tokenizer.ggml.bos_token_id", kBosMarker);
  set_marker_id(file, vocabulary, "tokenizer.ggml.eos_token_id", kEosMarker);
  set_marker_id(file, vocabulary, "tokenizer.ggml.padding_token_id", kPadMarker);
}

Vocabulary load_vocabulary(const std::filesystem::path& path) {
  std::array<char, 4> magic{};
  if (std::ifstream file(path, std::ios::binary); file) file.read(magic.data(), magic.size());
  if (std::string_view(magic.data(), magic.size()) == "GGUF") {
    return read_gguf_vocabulary(gguf::Reader(path));
  }
  return load_tokenizer_json(path);
}

}  // namespace ds4::tokenizer
