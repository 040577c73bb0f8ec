#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "grammar/grammar.h"
#include "grammar/token_trie.h"
#include "sample/token_set.h"

namespace ds4::grammar {

// Follows a text through a grammar, token by token, and says which tokens can come next.  A set of
// automata on stacks: all readings that the text still allows.  From every reading some text leads
// to the end, so that an answer can always be finished.  Confined to one thread.
class Matcher {
 public:
  // At the beginning of the grammar's root.
  Matcher(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie);

  // The tokens that can follow; the end of the turn among them when the text may end here.  Valid
  // until the next call of accept().  Cost: a few masks' worth of bits, and the tokens that run
  // over the end of a terminal; for a set of readings met before, nothing.
  const sample::TokenSet& allowed();
  // Goes on with `token`, or with any bytes.  False, and nothing has changed, when they can't come.
  bool accept(TokenId token);
  bool accept_bytes(std::string_view bytes);

  // Whether the text may end here.
  bool can_end() const { return now_.can_end; }
  // Whether nothing else can come.
  bool must_end() const { return now_.can_end && now_.readings.empty(); }

 private:
  using FrameId = std::uint32_t;
  static constexpr FrameId kBottom = 0;

  // What remains to be done when the part that stands on it has ended.
  struct Frame {
    NodeId node;
    std::uint32_t position;  // parts done; kMembers: an id in sets_
    FrameId below;
    std::uint32_t depth;
  };
  // A terminal under way.
  struct Reading {
    NodeId terminal;
    Dfa::State state;
    std::uint32_t characters;  // of a counted value
    FrameId below;
    friend bool operator==(const Reading&, const Reading&) = default;
  };
  struct Readings {
    std::vector<Reading> readings;
    bool can_end = false;
    friend bool operator==(const Readings&, const Readings&) = default;
  };
  struct FrameKey {
    NodeId node;
    std::uint32_t position;
    FrameId below;
    friend bool operator==(const FrameKey&, const FrameKey&) = default;
  };
  struct FrameHash {
    std::size_t operator()(const FrameKey& key) const;
  };
  struct Remembered {
    Readings readings;
    sample::TokenSet tokens;
    std::uint64_t used;
  };

  FrameId frame(NodeId node, std::uint32_t position, FrameId below);
  // Adds the readings of a node about to begin, or of what follows one that has ended.
  void enter(NodeId node, FrameId below, Readings& out);
  void enter_members(NodeId node, std::uint32_t set, FrameId below, Readings& out);
  void leave(FrameId frame, Readings& out);
  void add_reading(const Reading& reading, Readings& out);
  bool may_leave(const Node& terminal, const Reading& reading) const;
  void step(const Readings& from, std::uint8_t byte, Readings& to);
  void compute(sample::TokenSet& out);
  void add_walk(const Reading& reading, sample::TokenSet& out);
  void add_rest(std::uint32_t node, const Readings& from, sample::TokenSet& out);
  std::uint32_t set_with(std::uint32_t set, std::size_t part);

  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<const TokenTrie> trie_;
  std::vector<Frame> frames_;
  std::unordered_map<FrameKey, FrameId, FrameHash> frame_ids_;
  std::vector<std::vector<bool>> sets_;  // of parts that were had
  std::map<std::vector<bool>, std::uint32_t> set_ids_;
  Readings now_;
  // Against going round in one call of enter(): nodes that begin, frames that end.
  std::vector<std::pair<NodeId, FrameId>> entered_;
  std::vector<FrameId> left_;
  std::vector<std::uint64_t> words_;
  std::vector<Readings> scratch_;  // [depth of add_rest()]
  std::size_t rest_depth_ = 0;
  std::vector<Remembered> masks_;
  std::uint64_t turn_ = 0;
};

}  // namespace ds4::grammar
