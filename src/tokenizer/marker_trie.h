#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace ds4::tokenizer {

// Finds markers in text, the longest one at a place first.  Filled once, then immutable.
class MarkerTrie {
 public:
  void add(std::string_view marker, std::uint32_t id);

  struct Match {
    std::size_t bytes;
    std::uint32_t id;
  };
  // The longest marker that `text` begins with.
  std::optional<Match> match_front(std::string_view text) const;
  // Memory that it holds.
  std::size_t bytes() const;

 private:
  static constexpr std::uint32_t kNoId = 0xFFFFFFFFu;
  struct Node {
    std::vector<std::pair<char, std::uint32_t>> children;  // few at every node
    std::uint32_t id = kNoId;
  };
  std::uint32_t child(std::uint32_t node, char byte) const;  // 0: none

  std::vector<Node> nodes_ = std::vector<Node>(1);
};

}  // namespace ds4::tokenizer
