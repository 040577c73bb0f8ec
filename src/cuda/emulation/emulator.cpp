#include <csetjmp>
#include <memory>
#include <vector>

#include <ucontext.h>

#include "base/error.h"
#include "cuda/emulation/platform_host.h"

// NOLINTNEXTLINE(*-avoid-non-const-global-variables): as CUDA has them
ds4::cuda::emulation::Index3 threadIdx, blockIdx, blockDim, gridDim;

namespace ds4::cuda {

namespace emulation {

namespace {

constexpr std::size_t kStackBytes = std::size_t{128} * 1024;
constexpr std::size_t kSharedBytes = std::size_t{256} * 1024;
constexpr std::size_t kLaneBytes = 32;

enum class Wait { kNothing, kBlock, kWarp, kDone };

struct Fiber {
  std::unique_ptr<std::byte[]> stack;
  ucontext_t start;
  std::jmp_buf place;
  bool started = false;
  Wait wait = Wait::kNothing;
  std::uint32_t exchanges = 0;  // its parity picks the buffer, so a fast lane cannot overwrite
};

struct Warp {
  // [2][32] slots: the collective under way and the one before it.
  alignas(64) std::byte values[2][32 * kLaneBytes];
};

struct Machine {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::unique_ptr<std::byte[]> shared{new std::byte[kSharedBytes + 128]};
  std::jmp_buf scheduler;
  ucontext_t home;
  std::size_t current = 0;
  std::size_t thread_count = 0;
  void (*body)(const void*) = nullptr;
  const void* context = nullptr;
};

Machine& machine() {
  static Machine instance;
  return instance;
}

void yield_as(Wait wait) {
  Machine& m = machine();
  Fiber& fiber = m.fibers[m.current];
  fiber.wait = wait;
  if (_setjmp(fiber.place) == 0) _longjmp(m.scheduler, 1);
}

void fiber_main() {
  for (;;) {
    Machine& m = machine();
    DS4_CHECK(m.body != nullptr);
    m.body(m.context);
    yield_as(Wait::kDone);
  }
}

void resume(std::size_t index) {
  Machine& m = machine();
  m.current = index;
  threadIdx.x = static_cast<std::uint32_t>(index);
  Fiber& fiber = m.fibers[index];
  fiber.wait = Wait::kNothing;
  if (_setjmp(m.scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.place, 1);
  fiber.started = true;
  fiber.stack.reset(new std::byte[kStackBytes]);
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack.get();
  fiber.start.uc_stack.ss_size = kStackBytes;
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, fiber_main, 0);
  setcontext(&fiber.start);
}

// Runs the lanes of one warp until each waits for the block or is done.
void run_warp(std::size_t first, std::size_t end) {
  Machine& m = machine();
  for (;;) {
    std::size_t at_warp = 0;
    std::size_t live = 0;
    for (std::size_t i = first; i < end; ++i) {
      if (m.fibers[i].wait == Wait::kNothing) resume(i);
      live += m.fibers[i].wait == Wait::kDone ? 0 : 1;
      at_warp += m.fibers[i].wait == Wait::kWarp ? 1 : 0;
    }
    if (at_warp == 0) return;
    DS4_CHECK(at_warp == live && "a warp collective that not all lanes reach");
    for (std::size_t i = first; i < end; ++i)
      if (m.fibers[i].wait == Wait::kWarp) m.fibers[i].wait = Wait::kNothing;
  }
}

void run_block() {
  Machine& m = machine();
  for (std::size_t i = 0; i < m.thread_count; ++i) {
    m.fibers[i].wait = Wait::kNothing;
    m.fibers[i].exchanges = 0;
  }
  for (;;) {
    for (std::size_t first = 0; first < m.thread_count; first += 32)
      run_warp(first, std::min(first + 32, m.thread_count));
    std::size_t at_block = 0;
    std::size_t done = 0;
    for (std::size_t i = 0; i < m.thread_count; ++i) {
      at_block += m.fibers[i].wait == Wait::kBlock ? 1 : 0;
      done += m.fibers[i].wait == Wait::kDone ? 1 : 0;
    }
    if (done == m.thread_count) return;
    DS4_CHECK(at_block + done == m.thread_count);
    for (std::size_t i = 0; i < m.thread_count; ++i)
      if (m.fibers[i].wait == Wait::kBlock) m.fibers[i].wait = Wait::kNothing;
  }
}

}  // namespace

void run_grid(const LaunchShape& shape, void (*body)(const void* context), const void* context) {
  Machine& m = machine();
  DS4_CHECK(shape.threads % 32 == 0 && shape.threads <= 1024 && shape.shared_bytes <= kSharedBytes);
  if (m.fibers.size() < shape.threads) m.fibers.resize(shape.threads);
  if (m.warps.size() < shape.threads / 32) m.warps.resize(shape.threads / 32);
  m.thread_count = shape.threads;
  m.body = body;
  m.context = context;
  blockDim = {shape.threads, 1, 1};
  gridDim = {shape.grid_x, shape.grid_y, shape.grid_z};
  for (blockIdx.z = 0; blockIdx.z < shape.grid_z; ++blockIdx.z) {
    for (blockIdx.y = 0; blockIdx.y < shape.grid_y; ++blockIdx.y) {
      for (blockIdx.x = 0; blockIdx.x < shape.grid_x; ++blockIdx.x) {
        // Shared memory starts undefined: a pattern makes reliance on zeros visible.
        std::memset(block_shared(), 0xFF, shape.shared_bytes);
        run_block();
      }
    }
  }
}

void block_barrier() {
  yield_as(Wait::kBlock);
}

const std::byte* exchange(const void* value, std::size_t bytes) {
  DS4_CHECK(bytes <= kLaneBytes);
  Machine& m = machine();
  const std::size_t index = m.current;
  const std::uint32_t parity = m.fibers[index].exchanges++ % 2;
  std::byte* all = m.warps[index / 32].values[parity];
  std::memcpy(all + index % 32 * kLaneBytes, value, bytes);
  yield_as(Wait::kWarp);
  return all;
}

std::byte* block_shared() {
  const auto address = reinterpret_cast<std::uintptr_t>(machine().shared.get());
  return machine().shared.get() + ((128 - address % 128) % 128);
}

std::uint32_t lane() {
  return static_cast<std::uint32_t>(machine().current % 32);
}

}  // namespace emulation

namespace {

// f32 of every f16, since a tile product converts some of them 64 times.
const float* half_table() {
  static const std::vector<float> kTable = [] {
    std::vector<float> values(65536);
    for (std::uint32_t i = 0; i < values.size(); ++i)
      values[i] = f16_to_f32(static_cast<std::uint16_t>(i));
    return values;
  }();
  return kTable.data();
}

}  // namespace

void multiply_tile(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  struct Fragments {
    std::uint32_t a[4];
    std::uint32_t b[2];
  } mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const std::byte* all = emulation::exchange(&mine, sizeof mine);
  const float* value = half_table();
  const std::uint32_t group = emulation::lane() / 4;
  const std::uint32_t column = emulation::lane() % 4 * 2;
  float left[2][16];
  float right[2][16];
  for (std::uint32_t t = 0; t < 4; ++t) {
    const auto rows = emulation::lane_value<Fragments>(all, group * 4 + t);
    for (std::uint32_t i = 0; i < 4; ++i) {
      left[i % 2][i / 2 * 8 + t * 2] = value[rows.a[i] & 0xFFFF];
      left[i % 2][i / 2 * 8 + t * 2 + 1] = value[rows.a[i] >> 16];
    }
    for (std::uint32_t c = 0; c < 2; ++c) {
      const auto columns = emulation::lane_value<Fragments>(all, (column + c) * 4 + t);
      for (std::uint32_t i = 0; i < 2; ++i) {
        right[c][i * 8 + t * 2] = value[columns.b[i] & 0xFFFF];
        right[c][i * 8 + t * 2 + 1] = value[columns.b[i] >> 16];
      }
    }
  }
  for (std::uint32_t i = 0; i < 4; ++i) {
    float sum = 0;
    for (std::uint32_t k = 0; k < 16; ++k)
      sum += left[i / 2][k] * right[i % 2][k];
    d[i] += sum;
  }
}

void multiply_bytes(std::int32_t (&d)[4],
                    const std::uint32_t (&a)[4],
                    const std::uint32_t (&b)[2]) {
  struct Fragments {
    std::uint32_t a[4];
    std::uint32_t b[2];
  } mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const std::byte* all = emulation::exchange(&mine, sizeof mine);
  const std::uint32_t group = emulation::lane() / 4;
  const std::uint32_t column = emulation::lane() % 4 * 2;
  const auto signed_byte = [](std::uint32_t word, std::uint32_t index) {
    return static_cast<std::int32_t>(static_cast<std::int8_t>((word >> (8 * index)) & 255));
  };
  for (std::uint32_t t = 0; t < 4; ++t) {
    const auto rows = emulation::lane_value<Fragments>(all, group * 4 + t);
    for (std::uint32_t c = 0; c < 2; ++c) {
      const auto columns = emulation::lane_value<Fragments>(all, (column + c) * 4 + t);
      for (std::uint32_t i = 0; i < 4; ++i)
        for (std::uint32_t k = 0; k < 4; ++k)
          d[i % 2 * 2 + c] += signed_byte(rows.a[i], k) * signed_byte(columns.b[i / 2], k);
    }
  }
}

namespace {

void load_tiles_as(std::uint32_t (&r)[4], const void* shared_row, bool transposed) {
  const std::byte* all = emulation::exchange(&shared_row, sizeof shared_row);
  const std::uint32_t lane = emulation::lane();
  for (std::uint32_t m = 0; m < 4; ++m) {
    std::uint16_t halves[2];
    for (std::uint32_t i = 0; i < 2; ++i) {
      const std::uint32_t row = transposed ? lane % 4 * 2 + i : lane / 4;
      const std::uint32_t column = transposed ? lane / 4 : lane % 4 * 2 + i;
      const auto* address = emulation::lane_value<const std::uint16_t*>(all, m * 8 + row);
      halves[i] = address[column];
    }
    r[m] = halves[0] | (static_cast<std::uint32_t>(halves[1]) << 16);
  }
}

}  // namespace

void load_tiles(std::uint32_t (&r)[4], const void* shared_row) {
  load_tiles_as(r, shared_row, false);
}

void load_tiles_transposed(std::uint32_t (&r)[4], const void* shared_row) {
  load_tiles_as(r, shared_row, true);
}

}  // namespace ds4::cuda
