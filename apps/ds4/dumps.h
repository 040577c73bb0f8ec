#pragma once
#include <filesystem>
#include <span>
#include <string>

#include "engine/session.h"
#include "tokenizer/tokenizer.h"

namespace ds4::app {

// "[1, 2, 3]" and then a line a token: its id in six columns and its bytes, with what does not
// print written as \n, \t, \\ or \xNN.
std::string token_dump(const tokenizer::Tokenizer& tokenizer, std::span<const TokenId> tokens);

// A token's bytes as a JSON string: as they are when they are UTF-8, else \u00NN for every byte.
std::string json_token_text(std::string_view bytes);

struct LogprobDumpOptions {
  std::uint32_t token_max = 1;  // steps, at most
  std::uint32_t top_k = 20;
};

// Generates greedily behind the session's prompt and writes each step with its likeliest tokens
// (docs/formats/dumps.md).  Ends after the stop token.  The session must have logits.  Throws
// Error(kIo); the file is there as a whole or not at all.
void dump_logprobs(const std::filesystem::path& path,
                   Session& session,
                   const LogprobDumpOptions& options);

// Writes the session's logits, of its last token (docs/formats/dumps.md).  Errors as above.
void dump_logits(const std::filesystem::path& path, const Session& session);

}  // namespace ds4::app
