#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace ds4::gguf {
class Reader;
class Writer;
}  // namespace ds4::gguf

namespace ds4::tokenizer {

// What a token id stands for.
enum class TokenKind : std::uint8_t {
  kText,     // bytes of ordinary text, reached by merging; the only kind that plain text yields
  kAdded,    // a marker of the protocol, such as <think>; shown when decoded
  kControl,  // a marker that readers usually skip, such as the end of a sentence
  kUnused,   // a hole of the id range
};

// A vocabulary as files carry it, before anything is built from it: the seam between the loaders
// and the Tokenizer.  Plain data.
struct Vocabulary {
  std::vector<std::string> tokens;  // [id]; kText in the byte alphabet, the other kinds literal
  std::vector<TokenKind> kinds;     // [id]
  std::vector<std::string> merges;  // "left right" in the byte alphabet, the most wanted first
};

// Above these a file is refused before anything is allocated for it.
inline constexpr std::uint64_t kVocabularyTokensMax = 1u << 22;
inline constexpr std::uint64_t kTokenBytesMax = 1u << 16;

// Reads a Hugging Face tokenizer.json, plain or gzip.  Throws Error(kNotFound | kIo) when it can't
// be read, Error(kBadFormat) when it is damaged and Error(kUnsupported) when it asks for anything
// but the pre-tokenizer and byte-level BPE of this model family.
Vocabulary load_tokenizer_json(const std::filesystem::path& path);
// The same from the text of the file; `name` stands for it in messages.
Vocabulary parse_tokenizer_json(std::string_view text, std::string_view name);

// Reads tokenizer.ggml.tokens, merges and, when present, token_type.  A token that is neither a
// byte nor the product of a merge is a marker, whatever its type says.  Errors as above.
Vocabulary read_gguf_vocabulary(const gguf::Reader& file);
// Sets tokenizer.ggml.{model,pre,tokens,merges,token_type} and the bos, eos and padding ids that
// the vocabulary names, so that read_gguf_vocabulary() gives the same vocabulary back.
void write_gguf_vocabulary(gguf::Writer& file, const Vocabulary& vocabulary);

// Reads either kind of file, told apart by their first bytes.
Vocabulary load_vocabulary(const std::filesystem::path& path);

}  // namespace ds4::tokenizer
