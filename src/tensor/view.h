#pragma once
#include <array>
#include <cassert>
#include <cstddef>
#include <span>
#include <type_traits>

namespace ds4 {

#ifdef __CUDACC__
#define DS4_HD __host__ __device__
#else
#define DS4_HD
#endif

// Row-major, non-owning view of up to four axes; the last is contiguous.  Trivially copyable, so it
// is also a legal CUDA kernel argument.  The data may live on a device: only code of the backend
// that owns it may read through the view.
template <class T, std::size_t Rank>
class TensorView {
  static_assert(Rank >= 1 && Rank <= 4);

 public:
  constexpr TensorView() = default;
  DS4_HD constexpr TensorView(T* data, std::array<std::size_t, Rank> shape) : data_(data) {
    for (std::size_t i = 0; i < Rank; ++i)
      shape_[i] = shape[i];
  }

  DS4_HD constexpr T* data() const { return data_; }
  DS4_HD constexpr std::size_t extent(std::size_t axis) const { return shape_[axis]; }
  DS4_HD constexpr std::size_t size() const {
    std::size_t count = 1;
    for (std::size_t i = 0; i < Rank; ++i)
      count *= shape_[i];
    return count;
  }

  // view[i] drops the first axis: TensorView<T, Rank - 1>, or T& of a vector.
  DS4_HD constexpr decltype(auto) operator[](std::size_t i) const {
    assert(i < shape_[0]);
    if constexpr (Rank == 1) {
      return static_cast<T&>(data_[i]);
    } else {
      std::array<std::size_t, Rank - 1> rest{};
      std::size_t stride = 1;
      for (std::size_t a = 1; a < Rank; ++a) {
        rest[a - 1] = shape_[a];
        stride *= shape_[a];
      }
      return TensorView<T, Rank - 1>(data_ + i * stride, rest);
    }
  }

  // The first `count` entries of the first axis.
  DS4_HD constexpr TensorView first(std::size_t count) const {
    assert(count <= shape_[0]);
    TensorView view = *this;
    view.shape_[0] = count;
    return view;
  }

  constexpr std::span<T> flat() const { return {data_, size()}; }

  // NOLINTNEXTLINE(google-explicit-constructor): T to const T, as std::span does.
  DS4_HD constexpr operator TensorView<const T, Rank>() const requires(!std::is_const_v<T>) {
    std::array<std::size_t, Rank> shape{};
    for (std::size_t i = 0; i < Rank; ++i)
      shape[i] = shape_[i];
    return TensorView<const T, Rank>(data_, shape);
  }

 private:
  T* data_ = nullptr;
  std::size_t shape_[Rank] = {};
};

using Rows = TensorView<float, 2>;             // [rows, width], mutable
using ConstRows = TensorView<const float, 2>;  // [rows, width]

}  // namespace ds4
