#pragma once
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "chat/call_grammar.h"
#include "grammar/token_trie.h"
#include "server/ask.h"

namespace ds4::server {

// Grammars of answers by what they depend on: a conversation sends the same tools with every
// request.  The least recently used ones are forgotten first.  Synchronised.
class GrammarCache {
 public:
  explicit GrammarCache(std::shared_ptr<const grammar::TokenTrie> trie) : trie_(std::move(trie)) {}

  // What an answer to `ask` may look like, with the slow part of its masks made ahead.  Throws
  // Error(kInvalidArgument) that names the field for a schema that is not understood.
  chat::AnswerGrammars of(const Ask& ask);
  const std::shared_ptr<const grammar::TokenTrie>& trie() const { return trie_; }

 private:
  struct Entry {
    std::string key;
    chat::AnswerGrammars grammars;
  };

  const std::shared_ptr<const grammar::TokenTrie> trie_;
  std::mutex mutex_;
  std::list<Entry> entries_;  // the most recently used first
};

}  // namespace ds4::server
