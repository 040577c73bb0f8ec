// Matrix products over many rows on the tensor cores (tile_product.cuh has the kernel), and the
// rounding of their inputs.
#include "cuda/tile_product.cuh"

namespace ds4::cuda {

namespace {

template <ElementType type>
void launch_plain(Stream& stream, const char* stage, const TileProduct& p) {
  if (p.x_rest != nullptr) return tiles::launch_split<type>(stream, stage, p);
  tiles::launch_fitting<type, false>(stream, stage, p);
}

// A thread makes 16 bytes: the pairs that stand four apart in x.
DS4_KERNEL void round_rows(const float* x,
                           std::uint32_t x_stride,
                           std::uint32_t columns,
                           std::uint16_t* rounded,
                           std::uint16_t* rest) {
  wait_for_inputs();
  const std::uint32_t piece = blockIdx.x * blockDim.x + threadIdx.x;
  if (piece * 8 >= columns) return;
  const float* from = x + std::size_t{blockIdx.y} * x_stride + piece / 4 * 32 + piece % 4 * 2;
  std::uint32_t high[4];
  std::uint32_t low[4];
#pragma unroll
  for (std::uint32_t i = 0; i < 4; ++i) {
    const Float2 v = *reinterpret_cast<const Float2*>(from + i * 8);
    high[i] = pack_half2(v.x, v.y);
    low[i] = pack_half2(v.x - half_to_float(static_cast<std::uint16_t>(high[i] & 0xFFFF)),
                        v.y - half_to_float(static_cast<std::uint16_t>(high[i] >> 16)));
  }
  const std::size_t at = std::size_t{blockIdx.y} * columns / 8 + piece;
  reinterpret_cast<Words4*>(rounded)[at] = {high[0], high[1], high[2], high[3]};
  if (rest != nullptr) reinterpret_cast<Words4*>(rest)[at] = {low[0], low[1], low[2], low[3]};
}

}  // namespace

void run_tile_product(Stream& stream, const char* stage, const TileProduct& p) {
  switch (p.w.type) {
    case ElementType::kF32:
      return launch_plain<ElementType::kF32>(stream, stage, p);
    case ElementType::kF16:
      return launch_plain<ElementType::kF16>(stream, stage, p);
    case ElementType::kBF16:
      return launch_plain<ElementType::kBF16>(stream, stage, p);
    case ElementType::kQ8_0:
      return tiles::launch_fitting<ElementType::kQ8_0, false>(stream, stage, p);
    case ElementType::kIQ2XXS:
      return tiles::launch_fitting<ElementType::kIQ2XXS, false>(stream, stage, p);
    case ElementType::kMXFP4:
      return tiles::launch_fitting<ElementType::kMXFP4, false>(stream, stage, p);
    case ElementType::kQ4K:
      return tiles::launch_fitting<ElementType::kQ4K, false>(stream, stage, p);
    case ElementType::kQ2K:
      return tiles::launch_fitting<ElementType::kQ2K, false>(stream, stage, p);
    case ElementType::kI32:
      break;
  }
  DS4_CHECK(false);
}

void round_activations(Stream& stream,
                       const float* x,
                       std::uint32_t x_stride,
                       std::uint32_t rows,
                       std::uint32_t columns,
                       std::uint16_t* rounded,
                       std::uint16_t* rest) {
  DS4_CHECK(rows <= 65535);
  launch(stream, "rounding activations",
         {.grid_x = (columns / 8 + 127) / 128, .grid_y = rows, .threads = 128}, round_rows, x,
         x_stride, columns, rounded, rest);
}

}  // namespace ds4::cuda
