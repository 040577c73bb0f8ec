#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kvstore/state_io.h"
#include "tensor/strong.h"

// States for tests: bytes that are a function of (tokens so far, array, row), so that a restored
// row of the wrong place, length or conversation differs.  Used by this module's tests and benches.
namespace ds4::kvstore {

// DeepSeek V4 Flash: 43 layers, the first two of window alone, then ratio 4 and ratio 128 in turn.
inline StateLayout flash_layout() {
  StateLayout layout{.version = 1, .codec = "packed-584-68", .rows = {}, .carries = {}};
  constexpr auto kEvery = CarryPlace::kEveryState;
  for (std::uint32_t layer = 0; layer < 43; ++layer) {
    const std::uint32_t ratio = layer < 2 ? 0 : layer % 2 == 0 ? 4 : 128;
    layout.carries.push_back(
        {ArrayKind::kWindow, layer, CarryRule::kComplete, kEvery, 1, 128, 584});
    if (ratio == 0) continue;
    layout.rows.push_back({ArrayKind::kCompressedRows, layer, ratio, 584});
    if (ratio == 128) {
      layout.carries.push_back(
          {ArrayKind::kFrontierCurrent, layer, CarryRule::kPartial, kEvery, 128, 0, 2 * 512 * 4});
      continue;
    }
    layout.rows.push_back({ArrayKind::kIndexKeys, layer, 4, 68});
    // A token of a complete window still matters by its first half of columns alone.
    layout.carries.push_back(
        {ArrayKind::kFrontierPrevious, layer, CarryRule::kComplete, kEvery, 4, 4, 2 * 512 * 4});
    layout.carries.push_back(
        {ArrayKind::kFrontierCurrent, layer, CarryRule::kPartial, kEvery, 4, 0, 2 * 1024 * 4});
    layout.carries.push_back({ArrayKind::kIndexFrontierPrevious, layer, CarryRule::kComplete,
                              kEvery, 4, 4, 2 * 128 * 4});
    layout.carries.push_back(
        {ArrayKind::kIndexFrontierCurrent, layer, CarryRule::kPartial, kEvery, 4, 0, 2 * 256 * 4});
  }
  layout.carries.push_back(
      {ArrayKind::kLogits, 0, CarryRule::kComplete, CarryPlace::kTailOnly, 1, 1, 129280 * 4});
  return layout;
}

// The same shape with three layers and rows of a few bytes.
inline StateLayout small_layout() {
  constexpr auto kEvery = CarryPlace::kEveryState;
  StateLayout layout{.version = 1, .codec = "test", .rows = {}, .carries = {}};
  layout.rows = {{ArrayKind::kCompressedRows, 1, 4, 24},
                 {ArrayKind::kIndexKeys, 1, 4, 8},
                 {ArrayKind::kCompressedRows, 2, 128, 24}};
  layout.carries = {{ArrayKind::kWindow, 0, CarryRule::kComplete, kEvery, 1, 16, 2},
                    {ArrayKind::kWindow, 1, CarryRule::kComplete, kEvery, 1, 16, 2},
                    {ArrayKind::kFrontierPrevious, 1, CarryRule::kComplete, kEvery, 4, 4, 16},
                    {ArrayKind::kFrontierCurrent, 1, CarryRule::kPartial, kEvery, 4, 0, 32},
                    {ArrayKind::kFrontierCurrent, 2, CarryRule::kPartial, kEvery, 128, 0, 4},
                    {ArrayKind::kLogits, 0, CarryRule::kComplete, CarryPlace::kTailOnly, 1, 1, 40}};
  return layout;
}

}  // namespace ds4::kvstore
