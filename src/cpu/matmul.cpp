#include "cpu/matmul.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "quant/codec.h"

namespace ds4::cpu {

namespace {

// Values decoded at a time: a multiple of every block size, small enough for the first-level cache.
constexpr std::size_t kTileValues = 1024;
// Outputs per task: enough work to outweigh handing it out, few enough to balance.
constexpr std::size_t kBlockOutputs = 16;

}  // namespace

void Matmul::run(std::span<const MatmulJob> jobs) {
  blocks_.clear();
  for (const MatmulJob& job : jobs) {
    DS4_DCHECK(job.inputs.size() == job.outputs.size());
    if (job.inputs.empty()) continue;
    for (std::size_t first = 0; first < job.output_count; first += kBlockOutputs)
      blocks_.push_back({&job, first, std::min(kBlockOutputs, job.output_count - first)});
  }
  pool_.run(blocks_.size(), [this](std::size_t i) { run_block(blocks_[i]); });
}

void Matmul::run_block(const Block& block) const {
  const MatmulJob& job = *block.job;
  const Weight& weight = *job.weight;
  const ElementTypeInfo type = element_type_info(weight.type);
  std::array<float, kTileValues> tile;  // NOLINT: filled before use
  for (std::size_t o = block.first; o < block.first + block.count; ++o) {
    const auto row = weight.row(job.slab, job.first_output + o);
    for (std::size_t column = 0; column < weight.columns; column += kTileValues) {
      const std::size_t count = std::min(kTileValues, weight.columns - column);
      const float* values = tile.data();
      const std::byte* bytes = row.data() + column / type.values * type.bytes;
      if (weight.type == ElementType::kF32) {
        values = reinterpret_cast<const float*>(bytes);
      } else {
        quant::decode_row(weight.type, {bytes, count / type.values * type.bytes},
                          std::span(tile).first(count));
      }
      for (std::size_t r = 0; r < job.inputs.size(); ++r) {
        const float partial = kernels_.dot(values, job.inputs[r] + column, count);
        job.outputs[r][o] = column == 0 ? partial : job.outputs[r][o] + partial;
      }
    }
  }
}

}  // namespace ds4::cpu
