// A request body of any protocol becomes a conversation that renders and, where it asks for a form,
// grammars whose masks let something through; or it is refused with an Error.
//
// modules: server
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "chat/render.h"
#include "grammar/matcher.h"
#include "server/ask.h"
#include "server/grammar_cache.h"

namespace {

// Every byte is a token.
std::shared_ptr<const ds4::grammar::TokenTrie> trie() {
  static const auto kTrie = [] {
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte)
      tokens.emplace_back(1, static_cast<char>(byte));
    tokens.emplace_back();
    return std::make_shared<const ds4::grammar::TokenTrie>(tokens, ds4::TokenId{256});
  }();
  return kTrie;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ds4::server;
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const AskDefaults defaults{.model = "m", .think = ds4::chat::ThinkMode::kHigh, .sampling = {}};
  for (const auto read :
       {read_chat, read_completions, read_messages, read_messages_to_count, read_responses}) {
    try {
      const Ask ask = read(body, defaults);
      ask.sampling.validate();
      ds4::chat::render(ask.messages, {.think = ask.think});
      const ds4::chat::AnswerGrammars grammars = GrammarCache(trie()).of(ask);
      for (const auto& grammar : {grammars.answer, grammars.calls}) {
        if (!grammar) continue;
        ds4::grammar::Matcher matcher(grammar, trie());
        if (matcher.allowed().count() == 0) std::abort();
      }
    } catch (const ds4::Error& error) {
      if (error.code() == ds4::ErrorCode::kInternal) throw;
    }
  }
  return 0;
}
