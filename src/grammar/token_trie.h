#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "grammar/dfa.h"
#include "grammar/grammar.h"
#include "sample/token_set.h"
#include "tensor/strong.h"
#include "tokenizer/tokenizer.h"

namespace ds4::grammar {

inline constexpr char kMarkerByte = '\xFF';

// The vocabulary as a tree of bytes, in preorder: which tokens fit an automaton is one pass over it
// that leaves out what does not.  Tokens that belong to no well-formed text are left out; the tool
// calls' marker is the byte 0xFF and its name.  Immutable but for the walks that it remembers:
// synchronised.
class TokenTrie {
 public:
  explicit TokenTrie(const tokenizer::Tokenizer& tokenizer);
  // For tests and benchmarks: the bytes of each token, empty ones left out.
  TokenTrie(const std::vector<std::string>& token_bytes, TokenId end_of_turn);

  struct Node {
    std::uint8_t byte;          // that leads here
    std::uint16_t depth;        // the root's is 0
    std::uint32_t end;          // behind its last descendant
    std::uint32_t first_token;  // into tokens(); its own are those before the next node's
  };
  static constexpr std::uint32_t kRoot = 0;
  const Node& operator[](std::uint32_t node) const { return nodes_[node]; }
  std::size_t size() const { return nodes_.size() - 1; }
  // The tokens whose bytes end at `node`.
  std::span<const TokenId> tokens_at(std::uint32_t node) const {
    return std::span(tokens_).subspan(nodes_[node].first_token,
                                      nodes_[node + 1].first_token - nodes_[node].first_token);
  }
  std::string_view bytes_of(TokenId token) const;
  std::size_t vocab_size() const { return bytes_.size(); }
  TokenId end_of_turn() const { return end_of_turn_; }

  // What the tokens do to an automaton that stands in one state.
  struct Walk {
    // Tokens after which it has neither ended nor failed: one bit each when they are many, else one
    // by one.  Those of a counted automaton stand one by one, the longest first.
    std::vector<std::uint64_t> bits;
    struct Counted {
      TokenId token;
      std::uint32_t characters;
    };
    std::vector<Counted> single;
    // Nodes at which it accepts, so that what follows the terminal may begin there.
    struct Exit {
      std::uint32_t node;
      std::uint32_t characters;
    };
    std::vector<Exit> exits;
  };
  // Makes the walks ahead that would take long, so that no answer waits for them.
  void prepare(const Grammar& grammar) const;
  // Remembered: the cost is one pass over the part of the tree that fits, the first time.
  std::shared_ptr<const Walk> walk(const DfaPtr& dfa, Dfa::State state) const;

 private:
  void build();
  std::shared_ptr<const Walk> make_walk(const Dfa& dfa, Dfa::State state) const;

  std::vector<std::string> bytes_;  // [token]
  TokenId end_of_turn_;
  std::vector<Node> nodes_;      // and one behind the last
  std::vector<TokenId> tokens_;  // in order of their bytes
  std::size_t depth_max_ = 0;

  mutable std::mutex mutex_;
  mutable std::map<std::pair<DfaPtr, Dfa::State>, std::shared_ptr<const Walk>> walks_;
};

}  // namespace ds4::grammar
