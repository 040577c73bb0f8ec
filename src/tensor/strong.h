#pragma once
#include <compare>
#include <cstdint>
#include <functional>

namespace ds4 {

// An integer that does not convert into another kind of integer, so that a token cannot be passed
// as a position.
template <class Tag, class Rep>
class Strong {
 public:
  using rep = Rep;
  constexpr Strong() = default;
  constexpr explicit Strong(Rep value) : value_(value) {}
  constexpr Rep value() const { return value_; }
  friend constexpr auto operator<=>(Strong, Strong) = default;

 private:
  Rep value_{};
};

using TokenId = Strong<struct TokenIdTag, std::int32_t>;         // a row of the vocabulary
using LayerIndex = Strong<struct LayerIndexTag, std::uint32_t>;  // 0-based, over the whole model
using SequenceId = Strong<struct SequenceIdTag, std::uint32_t>;  // a slot of an executor
using Position = Strong<struct PositionTag, std::uint32_t>;      // 0-based place on the token axis

}  // namespace ds4

template <class Tag, class Rep>
struct std::hash<ds4::Strong<Tag, Rep>> {
  std::size_t operator()(ds4::Strong<Tag, Rep> id) const noexcept {
    return std::hash<Rep>{}(id.value());
  }
};
