#include "prompt.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "chat/render.h"
#include "gguf/reader.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary.h"

namespace ds4::bench {

namespace {

constexpr std::size_t kPromptBytesMax = std::size_t{1} << 30;

// Consecutive numbers to unrelated ones (the finaliser of splitmix64).
std::uint64_t scatter(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

tokenizer::RenderedPrompt render_chat(const std::string& system, const std::string& text) {
  std::vector<chat::Message> messages;
  if (!system.empty()) messages.push_back(chat::system_message(system));
  messages.push_back(chat::user_message(text));
  return chat::render(messages, {.think = chat::ThinkMode::kNone});
}

}  // namespace

TokenId Prompt::at(std::uint32_t position, std::uint32_t user) const {
  if (tokens_.empty()) {
    const std::uint64_t mixed = scatter((std::uint64_t{user} << 32) + position);
    return TokenId{static_cast<std::int32_t>(mixed % vocab_size_)};
  }
  constexpr std::size_t kUserStride = 7919;  // a prime: no two users meet in a short text
  return tokens_[(position + user * kUserStride) % tokens_.size()];
}

Prompt read_prompt(const std::filesystem::path& model,
                   const PromptSource& source,
                   std::size_t token_count) {
  const gguf::Reader reader(model);
  const tokenizer::Tokenizer tokenizer(tokenizer::read_gguf_vocabulary(reader));
  const std::string text = read_text_file(source.file, kPromptBytesMax);
  std::vector<TokenId> tokens = source.chat
                                    ? tokenizer.encode_rendered(render_chat(source.system, text))
                                    : tokenizer.encode_text(text);
  if (tokens.size() < token_count) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("{} has {} tokens, the largest frontier needs {}; give a longer text or "
                    "a smaller --ctx-max",
                    source.file.string(), tokens.size(), token_count));
  }
  return Prompt(std::move(tokens));
}

}  // namespace ds4::bench
