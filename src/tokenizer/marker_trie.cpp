#include "tokenizer/marker_trie.h"

namespace ds4::tokenizer {

std::uint32_t MarkerTrie::child(std::uint32_t node, char byte) const {
  for (const auto& [edge, target] : nodes_[node].children) {
    if (edge == byte) return target;
  }
  return 0;
}

void MarkerTrie::add(std::string_view marker, std::uint32_t id) {
  std::uint32_t node = 0;
  for (const char byte : marker) {
    std::uint32_t next = child(node, byte);
    if (next == 0) {
      next = static_cast<std::uint32_t>(nodes_.size());
      nodes_[node].children.emplace_back(byte, next);
      nodes_.emplace_back();
    }
    node = next;
  }
  nodes_[node].id = id;
}

std::optional<MarkerTrie::Match> MarkerTrie::match_front(std::string_view text) const {
  std::optional<Match> longest;
  std::uint32_t node = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    node = child(node, text[i]);
    if (node == 0) break;
    if (nodes_[node].id != kNoId) longest = Match{i + 1, nodes_[node].id};
  }
  return longest;
}

std::size_t MarkerTrie::bytes() const {
  std::size_t total = nodes_.capacity() * sizeof(Node);
  for (const Node& node : nodes_)
    total += node.children.capacity() * sizeof(node.children[0]);
  return total;
}

}  // namespace ds4::tokenizer
