#pragma once
#include <cstdint>
#include <filesystem>

#include "tokenizer/vocabulary.h"

namespace ds4::convert {

// Reads a tokenizer.json for a model whose embedding has `vocab_size` rows; rows without a token
// become unused ids.  Throws Error(kBadFormat) when there are more tokens than rows, and what
// tokenizer::load_tokenizer_json() throws.
tokenizer::Vocabulary read_vocabulary(const std::filesystem::path& path, std::uint32_t vocab_size);

// A vocabulary for trials: one token per byte, no merges, and the markers of chat; the rest are
// unused.  With the family's full size the markers have the ids of the published vocabulary.
// Throws Error(kInvalidArgument) when `vocab_size` has no room for them.
tokenizer::Vocabulary byte_vocabulary(std::uint32_t vocab_size);

}  // namespace ds4::convert
