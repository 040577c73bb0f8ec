#include "grammar/grammar.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"

namespace ds4::grammar {

namespace {
constexpr std::size_t kNodesMax = 200000;
constexpr std::size_t kStatesMax = 1000000;  // of all terminals
}  // namespace

NodeId Grammar::add(Node node) {
  if (node.dfa) state_count_ += node.dfa->state_count();
  if (nodes_.size() >= kNodesMax || state_count_ > kStatesMax)
    throw Error(ErrorCode::kInvalidArgument, "the schema is too large");
  nodes_.push_back(std::move(node));
  return static_cast<NodeId>(nodes_.size() - 1);
}

NodeId Grammar::add_text(std::string_view text) {
  const std::string copy(text);
  return add_terminal(dfa_of_texts({&copy, 1}));
}

NodeId Grammar::add_terminal(DfaPtr dfa, std::uint32_t least, std::uint32_t most) {
  return add({.kind = Node::Kind::kTerminal, .dfa = std::move(dfa), .least = least, .most = most});
}

NodeId Grammar::add_sequence(std::vector<NodeId> parts) {
  return add({.kind = Node::Kind::kSequence, .parts = std::move(parts)});
}

NodeId Grammar::add_choice(std::vector<NodeId> parts) {
  if (parts.size() == 1) return parts.front();
  return add({.kind = Node::Kind::kChoice, .parts = std::move(parts)});
}

NodeId Grammar::add_repeat(NodeId part, std::uint32_t least, std::uint32_t most) {
  return add({.kind = Node::Kind::kRepeat, .parts = {part}, .least = least, .most = most});
}

NodeId Grammar::add_members(std::vector<NodeId> parts,
                            std::uint32_t required,
                            NodeId other,
                            NodeId separator) {
  Node node{.kind = Node::Kind::kMembers, .least = required, .other = other};
  for (const NodeId part : parts)
    node.later_parts.push_back(add_sequence({separator, part}));
  if (other != Node::kNone) node.later_parts.push_back(add_sequence({separator, other}));
  node.parts = std::move(parts);
  return add(std::move(node));
}

bool Grammar::is_productive(const Node& node, const std::vector<bool>& productive) const {
  const auto is = [&](NodeId part) { return bool{productive[part]}; };
  switch (node.kind) {
    case Node::Kind::kTerminal:
      return !node.dfa->accepts_nothing();
    case Node::Kind::kSequence:
      return std::all_of(node.parts.begin(), node.parts.end(), is);
    case Node::Kind::kChoice:
      return std::any_of(node.parts.begin(), node.parts.end(), is);
    case Node::Kind::kRepeat:
      return node.least == 0 || is(node.parts.front());
    case Node::Kind::kMembers:
      return std::all_of(node.parts.begin(), node.parts.begin() + node.least, is);
  }
  return false;
}

bool Grammar::finish(NodeId root) {
  root_ = root;
  std::vector<bool> productive(nodes_.size());
  for (bool changed = true; changed;) {
    changed = false;
    for (std::size_t id = 0; id < nodes_.size(); ++id) {
      if (productive[id] || !is_productive(nodes_[id], productive)) continue;
      productive[id] = true;
      changed = true;
    }
  }
  for (Node& node : nodes_) {
    if (node.kind == Node::Kind::kChoice)
      std::erase_if(node.parts, [&](NodeId part) { return !productive[part]; });
    if (node.kind == Node::Kind::kRepeat && !productive[node.parts.front()]) node.most = 0;
    if (node.kind != Node::Kind::kMembers) continue;
    for (std::size_t i = node.parts.size(); i-- > 0;) {
      if (productive[node.parts[i]]) continue;
      node.parts.erase(node.parts.begin() + static_cast<std::ptrdiff_t>(i));
      node.later_parts.erase(node.later_parts.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if (node.other != Node::kNone && !productive[node.other]) node.other = Node::kNone;
  }
  return productive[root];
}

}  // namespace ds4::grammar
