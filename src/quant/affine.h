#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/float16.h"

namespace ds4::quant {

// The encoder shared by the formats whose value is  d * scale * q - dmin * min  with an integer
// scale and min per sub-block (Q2_K, Q4_K).  Internal to the encoders; pure functions.
//
// 1. Each sub-block alone: the real scale s and min m >= 0 that minimise
//    sum of w * (x - (s * q - m))^2 with q the nearest code.  For fixed codes s and m follow by
//    linear least squares; several starting ranges, each improved by alternating codes and fit.
// 2. The block: d and dmin from the largest s and m, then alternately the best integer (scale, min)
//    of each sub-block among the neighbours, and d, dmin by least squares for those.
template <std::size_t kSubBlocks, std::size_t kSubValues, int kCodeMax, int kScaleMax>
class AffineEncoder {
 public:
  static constexpr std::size_t kValues = kSubBlocks * kSubValues;

  AffineEncoder(std::span<const float, kValues> values, const std::array<float, kValues>& weights)
      : values_(values),
        weights_(weights) {
    for (std::size_t s = 0; s < kSubBlocks; ++s)
      fits_[s] = fit_sub_block(s);
    choose_block_scales();
    for (int round = 0; round < 2; ++round) {
      search_integers();
      if (!refit_block_scales()) break;
    }
    search_integers();
    for (std::size_t s = 0; s < kSubBlocks; ++s)
      store_codes(s);
  }

  std::uint16_t d() const { return d_; }        // f16 bits
  std::uint16_t dmin() const { return dmin_; }  // f16 bits
  const std::array<std::uint8_t, kSubBlocks>& scales() const { return scales_; }
  const std::array<std::uint8_t, kSubBlocks>& mins() const { return mins_; }
  const std::array<std::uint8_t, kValues>& codes() const { return codes_; }

 private:
  struct Fit {
    float scale = 0;
    float min = 0;
  };
  // Weighted sums over a sub-block: of 1, x, q, q^2, q * x.
  struct Sums {
    float w = 0, x = 0, q = 0, qq = 0, qx = 0;
  };
  static constexpr std::size_t kLanes = 4;  // independent sums, so that compilers can vectorise
  using Lanes = std::array<float, kLanes>;

  static float code_of(float value, Fit fit, float inverse) {
    const float position = (value + fit.min) * inverse + 0.5F;
    const float bounded = std::min(std::max(position, 0.0F), static_cast<float>(kCodeMax) + 0.5F);
    return static_cast<float>(static_cast<int>(bounded));
  }

  static float inverse_of(float scale) { return scale > 0 ? 1 / scale : 0.0F; }

  static float total(const Lanes& lanes) { return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]); }

  // The weighted squared error of sub-block `s` under `fit`.
  float error_of(std::size_t s, Fit fit) const {
    const float inverse = inverse_of(fit.scale);
    const float* x = values_.data() + s * kSubValues;
    const float* w = weights_.data() + s * kSubValues;
    Lanes error{};
    for (std::size_t i = 0; i < kSubValues; i += kLanes) {
      for (std::size_t l = 0; l < kLanes; ++l) {
        const float q = code_of(x[i + l], fit, inverse);
        const float difference = fit.scale * q - fit.min - x[i + l];
        error[l] += w[i + l] * difference * difference;
      }
    }
    return total(error);
  }

  Sums sums_of(std::size_t s, Fit fit) const {
    const float inverse = inverse_of(fit.scale);
    const float* x = values_.data() + s * kSubValues;
    const float* w = weights_.data() + s * kSubValues;
    Lanes sum_w{}, sum_x{}, sum_q{}, sum_qq{}, sum_qx{};
    for (std::size_t i = 0; i < kSubValues; i += kLanes) {
      for (std::size_t l = 0; l < kLanes; ++l) {
        const float q = code_of(x[i + l], fit, inverse);
        const float wq = w[i + l] * q;
        sum_w[l] += w[i + l];
        sum_x[l] += w[i + l] * x[i + l];
        sum_q[l] += wq;
        sum_qq[l] += wq * q;
        sum_qx[l] += wq * x[i + l];
      }
    }
    return {total(sum_w), total(sum_x), total(sum_q), total(sum_qq), total(sum_qx)};
  }

  // The best scale and min >= 0 for the codes behind `sums`.
  static Fit solve(const Sums& sums, Fit otherwise) {
    const float determinant = sums.w * sums.qq - sums.q * sums.q;
    if (determinant > 1e-6F * sums.w * sums.qq) {
      const Fit fit{(sums.w * sums.qx - sums.q * sums.x) / determinant,
                    (sums.q * sums.qx - sums.qq * sums.x) / determinant};
      if (fit.scale > 0 && fit.min >= 0) return fit;
    }
    if (sums.qq > 0 && sums.qx > 0) return {sums.qx / sums.qq, 0.0F};
    return otherwise;
  }

  Fit fit_sub_block(std::size_t s) const {
    const auto sub = values_.subspan(s * kSubValues, kSubValues);
    const auto [lowest, highest] = std::minmax_element(sub.begin(), sub.end());
    const float low = std::min(*lowest, 0.0F);
    const float range = *highest - low;
    if (!(range > 0)) return {0.0F, -low};
    Fit best{range / kCodeMax, -low};
    float best_error = error_of(s, best);
    // Ranges from slightly wider than the data to clearly narrower: the ends then clip.
    constexpr int kStarts = 8;
    constexpr float kNarrowest = kCodeMax <= 3 ? 0.55F : 0.8F;
    for (int start = 0; start < kStarts; ++start) {
      const float part = 1.05F - (1.05F - kNarrowest) * static_cast<float>(start) / (kStarts - 1);
      Fit fit{range * part / kCodeMax, std::max(0.0F, -low - range * (1 - part) / 2)};
      for (int step = 0; step < 2; ++step)
        fit = solve(sums_of(s, fit), fit);
      const float error = error_of(s, fit);
      if (error < best_error) {
        best_error = error;
        best = fit;
      }
    }
    return best;
  }

  static std::uint16_t to_f16(float value) { return f32_to_f16(std::min(value, 65504.0F)); }

  static int to_integer(float ratio) {
    return static_cast<int>(std::clamp(ratio + 0.5F, 0.0F, static_cast<float>(kScaleMax)));
  }

  void choose_block_scales() {
    float scale = 0;
    float min = 0;
    for (const Fit& fit : fits_) {
      scale = std::max(scale, fit.scale);
      min = std::max(min, fit.min);
    }
    d_ = to_f16(scale / kScaleMax);
    dmin_ = to_f16(min / kScaleMax);
    const float d = f16_to_f32(d_);
    const float dmin = f16_to_f32(dmin_);
    for (std::size_t s = 0; s < kSubBlocks; ++s) {
      scales_[s] = static_cast<std::uint8_t>(to_integer(fits_[s].scale * inverse_of(d)));
      mins_[s] = static_cast<std::uint8_t>(to_integer(fits_[s].min * inverse_of(dmin)));
    }
  }

  // Moves each sub-block's (scale, min) to the best of its neighbours at the present d and dmin.
  void search_integers() {
    constexpr std::array<std::array<int, 2>, 8> kSteps = {
        {{-1, -1}, {-1, 0}, {-1, 1}, {0, -1}, {0, 1}, {1, -1}, {1, 0}, {1, 1}}};
    for (std::size_t s = 0; s < kSubBlocks; ++s) {
      const int scale_centre = scales_[s];
      const int min_centre = mins_[s];
      float best = error_of(s, present_fit(s));
      for (const auto& [scale_step, min_step] : kSteps) {
        const int scale = std::clamp(scale_centre + scale_step, 0, kScaleMax);
        const int min = std::clamp(min_centre + min_step, 0, kScaleMax);
        const float error = error_of(s, fit_of(scale, min));
        if (error >= best) continue;
        best = error;
        scales_[s] = static_cast<std::uint8_t>(scale);
        mins_[s] = static_cast<std::uint8_t>(min);
      }
    }
  }

  // d and dmin by least squares for the present integers and their codes.  False when nothing
  // changed.
  bool refit_block_scales() {
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;  // value = d * a - dmin * b
    for (std::size_t s = 0; s < kSubBlocks; ++s) {
      const double scale = scales_[s];
      const double min = mins_[s];
      const Sums sums = sums_of(s, present_fit(s));
      aa += scale * scale * sums.qq;
      ab += scale * min * sums.q;
      bb += min * min * sums.w;
      ax += scale * sums.qx;
      bx += min * sums.x;
    }
    const double determinant = aa * bb - ab * ab;
    double d = aa > 0 ? ax / aa : 0.0;
    double dmin = 0;
    if (determinant > 1e-9 * aa * bb) {
      d = (ax * bb - ab * bx) / determinant;
      dmin = (ax * ab - aa * bx) / determinant;
    }
    if (!(d > 0) || !(dmin >= 0)) return false;
    const std::uint16_t old_d = d_;
    const std::uint16_t old_dmin = dmin_;
    const double old_error = block_error();
    d_ = to_f16(static_cast<float>(d));
    dmin_ = to_f16(static_cast<float>(dmin));
    if (block_error() < old_error) return true;
    d_ = old_d;
    dmin_ = old_dmin;
    return false;
  }

  // What integers stand for at the present d and dmin.
  Fit fit_of(int scale, int min) const {
    return {f16_to_f32(d_) * static_cast<float>(scale),
            f16_to_f32(dmin_) * static_cast<float>(min)};
  }

  Fit present_fit(std::size_t s) const { return fit_of(scales_[s], mins_[s]); }

  double block_error() const {
    double error = 0;
    for (std::size_t s = 0; s < kSubBlocks; ++s)
      error += double{error_of(s, present_fit(s))};
    return error;
  }

  void store_codes(std::size_t s) {
    const Fit fit = present_fit(s);
    const float inverse = inverse_of(fit.scale);
    for (std::size_t i = s * kSubValues; i < (s + 1) * kSubValues; ++i)
      codes_[i] = static_cast<std::uint8_t>(code_of(values_[i], fit, inverse));
  }

  std::span<const float, kValues> values_;
  const std::array<float, kValues>& weights_;
  std::array<Fit, kSubBlocks> fits_{};
  std::uint16_t d_ = 0;
  std::uint16_t dmin_ = 0;
  std::array<std::uint8_t, kSubBlocks> scales_{};
  std::array<std::uint8_t, kSubBlocks> mins_{};
  std::array<std::uint8_t, kValues> codes_{};
};

}  // namespace ds4::quant
