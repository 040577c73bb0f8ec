#include "quant/iq2_xxs.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "quant/iq2_xxs_codebook.h"
#include "quant/weights.h"
#include "tensor/float16.h"

namespace ds4::quant {

namespace {

constexpr std::size_t kRows = kIq2XxsCodes.size();
constexpr std::size_t kSubValues = 8;
constexpr std::size_t kSubGroups = 4;  // of a group
constexpr std::size_t kGroupValues = kSubValues * kSubGroups;
constexpr int kScaleMax = 15;

// Codebook magnitudes with the row index last, so that one value meets all rows in a vector loop.
constexpr auto kMagnitudes = [] {
  std::array<std::array<float, kRows>, kSubValues> magnitudes{};
  for (std::size_t row = 0; row < kRows; ++row)
    for (std::size_t i = 0; i < kSubValues; ++i)
      magnitudes[i][row] = static_cast<float>(kIq2XxsGrid[row][i]);
  return magnitudes;
}();

// What a sub-group of 8 values costs with each codebook row r at multiplier g, less a constant:
//   cost = g^2 * square[r] - 2 * g * product[r]
// where product = sum of w * |x| * magnitude and square = sum of w * magnitude^2.  When the number
// of negative values is odd one sign must be wrong; the cheapest one is, which takes twice the
// smallest w * |x| * magnitude off the product.  Neither table depends on g.
class SubGroup {
 public:
  void prepare(const float* values, const float* weights) {
    std::array<float, kSubValues> weighted;
    negative_ = 0;
    for (std::size_t i = 0; i < kSubValues; ++i) {
      weighted_[i] = weights[i] * std::abs(values[i]);
      if (values[i] < 0) negative_ |= 1U << i;
    }
    weighted = weighted_;
    product_.fill(0);
    square_.fill(0);
    for (std::size_t i = 0; i < kSubValues; ++i) {
      const float weight = weights[i];
      const float factor = weighted[i];
      for (std::size_t row = 0; row < kRows; ++row) {
        const float magnitude = kMagnitudes[i][row];
        product_[row] += factor * magnitude;
        square_[row] += weight * magnitude * magnitude;
      }
    }
    if (std::popcount(negative_) % 2 != 0) forbid_odd_signs();
  }

  // The least cost over all rows at multiplier `g`.
  float cost(float g) const {
    constexpr std::size_t kLanes = 8;
    std::array<float, kLanes> least;
    least.fill(std::numeric_limits<float>::infinity());
    for (std::size_t row = 0; row < kRows; row += kLanes) {
      for (std::size_t l = 0; l < kLanes; ++l) {
        const float value = g * (g * square_[row + l] - 2 * product_[row + l]);
        least[l] = value < least[l] ? value : least[l];
      }
    }
    return *std::min_element(least.begin(), least.end());
  }

  // The row of least cost at multiplier `g`.
  std::size_t best_row(float g) const {
    std::size_t best = 0;
    float least = std::numeric_limits<float>::infinity();
    for (std::size_t row = 0; row < kRows; ++row) {
      const float value = g * (g * square_[row] - 2 * product_[row]);
      if (value < least) {
        least = value;
        best = row;
      }
    }
    return best;
  }

  float product(std::size_t row) const { return product_[row]; }
  float square(std::size_t row) const { return square_[row]; }

  // The sign bits to store with `row`: an even number of them.
  std::uint8_t signs(std::size_t row) const {
    unsigned signs = negative_;
    if (std::popcount(signs) % 2 != 0) {
      std::size_t cheapest = 0;
      for (std::size_t i = 1; i < kSubValues; ++i)
        if (weighted_[i] * kMagnitudes[i][row] < weighted_[cheapest] * kMagnitudes[cheapest][row])
          cheapest = i;
      signs ^= 1U << cheapest;
    }
    return static_cast<std::uint8_t>(signs);
  }

 private:
  void forbid_odd_signs() {
    std::array<float, kRows> cheapest;
    cheapest.fill(std::numeric_limits<float>::infinity());
    for (std::size_t i = 0; i < kSubValues; ++i) {
      const float factor = weighted_[i];
      for (std::size_t row = 0; row < kRows; ++row) {
        const float value = factor * kMagnitudes[i][row];
        cheapest[row] = value < cheapest[row] ? value : cheapest[row];
      }
    }
    for (std::size_t row = 0; row < kRows; ++row)
      product_[row] -= 2 * cheapest[row];
  }

  std::array<float, kRows> product_;
  std::array<float, kRows> square_;
  std::array<float, kSubValues> weighted_;  // w * |x|
  unsigned negative_ = 0;                   // bit i: value i is negative
};

// The search over one group of 32 values.
class GroupSearch {
 public:
  void prepare(const float* values, const float* weights) {
    double energy = 0;
    double weight = 0;
    for (std::size_t i = 0; i < kGroupValues; ++i) {
      energy += double{weights[i]} * double{values[i]} * double{values[i]};
      weight += double{weights[i]};
    }
    rms_ = static_cast<float>(std::sqrt(energy / weight));
    if (rms_ == 0) return;
    for (std::size_t k = 0; k < kSubGroups; ++k)
      subs_[k].prepare(values + k * kSubValues, weights + k * kSubValues);
  }

  bool all_zero() const { return rms_ == 0; }

  float cost(float g) const {
    float sum = 0;
    for (const SubGroup& sub : subs_)
      sum += sub.cost(g);
    return sum;
  }

  // The best real multiplier: from a ladder around the rms, then by least squares for its rows.
  float best_multiplier() const {
    if (all_zero()) return 0;
    // Gaussian groups end near 0.045; a flat one near 1/8, with rows of the smallest magnitude.
    constexpr std::array kLadder = {0.032F, 0.038F, 0.044F, 0.050F, 0.057F, 0.066F, 0.085F, 0.125F};
    float best = 0;
    float least = std::numeric_limits<float>::infinity();
    for (const float step : kLadder) {
      const float g = step * rms_;
      const float value = cost(g);
      if (value < least) {
        least = value;
        best = g;
      }
    }
    const auto [product, square] = sums(best);
    return product > 0 ? product / square : best;
  }

  struct Sums {
    float product;
    float square;
  };
  // Over the rows chosen at multiplier `g`.
  Sums sums(float g) const {
    Sums result{0, 0};
    for (const SubGroup& sub : subs_) {
      const std::size_t row = sub.best_row(g);
      result.product += sub.product(row);
      result.square += sub.square(row);
    }
    return result;
  }

  IQ2XXS::Group choose(float g, int scale) const {
    IQ2XXS::Group group{};
    group.scale = static_cast<std::uint8_t>(scale);
    if (all_zero()) return group;
    for (std::size_t k = 0; k < kSubGroups; ++k) {
      const std::size_t row = subs_[k].best_row(g);
      group.rows[k] = static_cast<std::uint8_t>(row);
      group.signs[k] = subs_[k].signs(row);
    }
    return group;
  }

 private:
  std::array<SubGroup, kSubGroups> subs_;
  float rms_ = 0;
};

// The multiplier of a codebook magnitude, for a block scale and a group scale.
float multiplier(float d, int scale) {
  return d * static_cast<float>(2 * scale + 1) / 8;
}

void store_group(const IQ2XXS::Group& group, std::size_t index, IQ2XXS::Block& block) {
  std::uint32_t aux = static_cast<std::uint32_t>(group.scale) << 28;
  for (std::size_t k = 0; k < kSubGroups; ++k)
    aux |= static_cast<std::uint32_t>(group.signs[k] & 127) << (7 * k);
  std::uint16_t* halves = &block.qs[index * 4];
  halves[0] = static_cast<std::uint16_t>(group.rows[0] | (group.rows[1] << 8));
  halves[1] = static_cast<std::uint16_t>(group.rows[2] | (group.rows[3] << 8));
  halves[2] = static_cast<std::uint16_t>(aux & 0xFFFF);
  halves[3] = static_cast<std::uint16_t>(aux >> 16);
}

}  // namespace

IQ2XXS::Group IQ2XXS::group(const Block& block, std::size_t index) {
  const std::uint16_t* halves = &block.qs[index * 4];
  const std::uint32_t aux = halves[2] | (static_cast<std::uint32_t>(halves[3]) << 16);
  Group group{};
  group.rows = {
      static_cast<std::uint8_t>(halves[0] & 255), static_cast<std::uint8_t>(halves[0] >> 8),
      static_cast<std::uint8_t>(halves[1] & 255), static_cast<std::uint8_t>(halves[1] >> 8)};
  for (std::size_t k = 0; k < kSubGroups; ++k)
    group.signs[k] = kIq2XxsSigns[(aux >> (7 * k)) & 127];
  group.scale = static_cast<std::uint8_t>(aux >> 28);
  return group;
}

void IQ2XXS::decode(const Block& block, std::span<float, kValues> out) {
  const float d = f16_to_f32(block.d);
  for (std::size_t index = 0; index < kGroups; ++index) {
    const Group parts = group(block, index);
    const float scale = multiplier(d, parts.scale);
    for (std::size_t i = 0; i < kGroupValues; ++i) {
      const std::size_t k = i / kSubValues;
      const auto magnitude = static_cast<float>(kIq2XxsGrid[parts.rows[k]][i % kSubValues]);
      const bool negative = ((parts.signs[k] >> (i % kSubValues)) & 1) != 0;
      out[index * kGroupValues + i] = scale * (negative ? -magnitude : magnitude);
    }
  }
}

void IQ2XXS::encode(std::span<const float, kValues> values,
                    std::span<const float> importance,
                    Block& block) {
  const std::array weights = error_weights<kValues>(importance);
  block = {};
  std::array<GroupSearch, kGroups> groups;
  std::array<float, kGroups> wanted{};
  for (std::size_t i = 0; i < kGroups; ++i) {
    groups[i].prepare(&values[i * kGroupValues], &weights[i * kGroupValues]);
    wanted[i] = groups[i].best_multiplier();
  }
  const float largest = *std::max_element(wanted.begin(), wanted.end());
  if (!(largest > 0)) return;
  float d = largest * 8 / (2 * kScaleMax + 1);

  // Each group takes the best scale next to the wanted one; then d follows by least squares.
  std::array<int, kGroups> scales{};
  double product = 0;
  double square = 0;
  for (std::size_t i = 0; i < kGroups; ++i) {
    if (groups[i].all_zero()) continue;
    const int centre = static_cast<int>(std::lrint((wanted[i] * 8 / d - 1) / 2));
    float least = std::numeric_limits<float>::infinity();
    for (int scale = std::max(centre - 1, 0); scale <= std::min(centre + 1, kScaleMax); ++scale) {
      const float cost = groups[i].cost(multiplier(d, scale));
      if (cost < least) {
        least = cost;
        scales[i] = scale;
      }
    }
    const auto sums = groups[i].sums(multiplier(d, scales[i]));
    const double step = double{multiplier(1, scales[i])};
    product += step * double{sums.product};
    square += step * step * double{sums.square};
  }
  if (product > 0) d = static_cast<float>(product / square);
  block.d = f32_to_f16(std::min(d, 65504.0F));
  d = f16_to_f32(block.d);
  for (std::size_t i = 0; i < kGroups; ++i)
    store_group(groups[i].choose(multiplier(d, scales[i]), scales[i]), i, block);
}

}  // namespace ds4::quant
