#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "base/error.h"
#include "tensor/element_type.h"

namespace ds4::quant {

// One GGUF block format: a type without state.  Its Block is the layout on disk, `decode` is the
// scalar truth that every vector or GPU kernel is tested against, and `encode` chooses the block
// for given values.  `importance` weighs the squared error of each value; empty means all the same
// to the caller, and the format then picks its own weights.  Pure functions: usable from any
// thread.
template <class F>
concept Format = requires(const typename F::Block& block,
                          typename F::Block& out_block,
                          std::span<float, F::kValues> out,
                          std::span<const float, F::kValues> values,
                          std::span<const float> importance) {
  { F::kType } -> std::convertible_to<ElementType>;
  requires std::is_trivially_copyable_v<typename F::Block>;
  requires F::kValues % 32 == 0;
  { F::decode(block, out) } -> std::same_as<void>;
  { F::encode(values, importance, out_block) } -> std::same_as<void>;
};

// The bytes of a tensor, or of whole rows of it, as blocks.  The bytes must be aligned as the Block
// is, which every tensor of a file that gguf::Reader accepts is.
template <class F>
std::span<const typename F::Block> blocks_of(std::span<const std::byte> bytes) {
  using Block = typename F::Block;
  constexpr std::size_t kBlockBytes = sizeof(Block);
  constexpr std::size_t kBlockAlignment = alignof(Block);
  DS4_DCHECK(bytes.size() % kBlockBytes == 0);
  DS4_DCHECK(reinterpret_cast<std::uintptr_t>(bytes.data()) % kBlockAlignment == 0);
  return {reinterpret_cast<const Block*>(bytes.data()), bytes.size() / kBlockBytes};
}

}  // namespace ds4::quant
