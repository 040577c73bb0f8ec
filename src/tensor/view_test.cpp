#include "tensor/view.h"

#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include "tensor/element_type.h"
#include "tensor/strong.h"

namespace ds4 {
namespace {

static_assert(!std::is_convertible_v<TokenId, Position>, "a token is not a position");
static_assert(!std::is_convertible_v<int, TokenId>, "a number is not a token");
static_assert(std::is_trivially_copyable_v<TensorView<float, 3>>);

TEST(TensorView, IndexesRowMajor) {
  std::vector<float> data(24);
  for (std::size_t i = 0; i < data.size(); ++i)
    data[i] = static_cast<float>(i);
  const TensorView<float, 3> view(data.data(), {2, 3, 4});
  EXPECT_EQ(view[1][2][3], 23.0F);
  EXPECT_EQ(view[1][0][0], 12.0F);
  EXPECT_EQ(view.size(), 24U);
  EXPECT_EQ(view.first(1).size(), 12U);
  const TensorView<const float, 3> fixed = view;
  EXPECT_EQ(fixed[0][1][0], 4.0F);
}

TEST(ElementType, NamesAndIdsRoundTrip) {
  for (const std::uint32_t id : {0U, 1U, 8U, 10U, 12U, 16U, 26U, 30U, 39U}) {
    const auto type = element_type_from_id(id);
    ASSERT_TRUE(type.has_value());
    EXPECT_EQ(element_type_from_name(element_type_info(*type).name), type);
  }
  EXPECT_EQ(element_type_from_id(9), std::nullopt);
  EXPECT_EQ(element_type_from_name("q2_k"), ElementType::kQ2K);
  EXPECT_EQ(row_bytes(ElementType::kQ2K, 4096), 16U * 84U);
}

}  // namespace
}  // namespace ds4
