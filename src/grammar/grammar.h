#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "grammar/dfa.h"

namespace ds4::grammar {

using NodeId = std::uint32_t;

// One rule: what may stand at a place.  Rules refer to each other by id, in circles too.
struct Node {
  enum class Kind {
    kTerminal,  // the texts of `dfa`, when counted with `least` to `most` characters
    kSequence,  // the parts one after another
    kChoice,    // one of the parts
    kRepeat,    // the one part, `least` to `most` times
    kMembers,  // the parts in any order, each at most once, the first `least` of them exactly once;
               // `separator` between them; `other`, if there is one, among them any number of times
  };
  static constexpr NodeId kNone = 0xFFFFFFFF;

  Kind kind = Kind::kSequence;
  DfaPtr dfa = {};
  std::vector<NodeId> parts = {};
  std::uint32_t least = 0;
  std::uint32_t most = kUnbounded;
  // kMembers: for each part, and at the end for `other`, the part behind a separator.
  std::vector<NodeId> later_parts = {};
  NodeId other = kNone;
  bool nests = false;  // may hold itself: not begun beyond a depth
};

// A context-free grammar over bytes with automata as terminals: what an answer must look like.
// Marker tokens stand in it as the byte 0xFF and their name, as in prompt keys.  Immutable once
// built: may be used from several threads.
class Grammar {
 public:
  const Node& operator[](NodeId id) const { return nodes_[id]; }
  std::size_t size() const { return nodes_.size(); }
  NodeId root() const { return root_; }

  // --- building ---
  // These throw Error(kInvalidArgument) when the whole grows beyond a million states.
  NodeId add(Node node);
  NodeId add_text(std::string_view text);
  NodeId add_terminal(DfaPtr dfa, std::uint32_t least = 0, std::uint32_t most = kUnbounded);
  NodeId add_sequence(std::vector<NodeId> parts);
  NodeId add_choice(std::vector<NodeId> parts);
  NodeId add_repeat(NodeId part, std::uint32_t least, std::uint32_t most);
  // `required` stand before the other parts.
  NodeId add_members(std::vector<NodeId> parts,
                     std::uint32_t required,
                     NodeId other,
                     NodeId separator);
  // A rule to refer to before it is known; set it by define().
  NodeId add_open() { return add({}); }
  void define(NodeId open, NodeId meaning) { nodes_[open].parts = {meaning}; }
  void set_nests(NodeId id) { nodes_[id].nests = true; }
  // Makes `root` the grammar's start and drops choices that no text could complete.  False when
  // nothing is left.
  bool finish(NodeId root);

 private:
  bool is_productive(const Node& node, const std::vector<bool>& productive) const;

  std::vector<Node> nodes_;
  std::size_t state_count_ = 0;  // of all terminals
  NodeId root_ = 0;
};

}  // namespace ds4::grammar
