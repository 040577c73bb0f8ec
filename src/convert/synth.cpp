#include "convert/synth.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/thread_pool.h"
#include "convert/parallel.h"
#include "convert/random_blocks.h"
#include "convert/vocabulary.h"
#include "gguf/writer.h"

namespace ds4::convert {

namespace {

// Bytes of one task, rounded down to whole rows.  Part of the format of the output: each task has
// its own generator, so another size would give other weights for the same seed.
constexpr std::uint64_t kTaskBytes = std::uint64_t{4} << 20;

// What the values of a vector should be for the graph to behave like a trained one's.
void fill_vector(const PlannedTensor& tensor,
                 const ModelShape& shape,
                 Random& random,
                 std::span<float> values) {
  const std::string_view name = tensor.name;
  if (name.ends_with("norm.weight")) {
    for (float& value : values)
      value = 1.0F + 0.05F * random.normal();
  } else if (name.ends_with("_scale.weight")) {
    std::fill(values.begin(), values.end(), 0.1F);
  } else if (name.ends_with("_base.weight")) {
    // Gates in near 1 / streams, gates out near 1, streams that mostly keep to themselves.
    const std::size_t streams = shape.stream_count;
    DS4_CHECK(streams > 0);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (i < streams) {
        values[i] = -std::log(static_cast<float>(streams) - 0.99F);
      } else if (i < 2 * streams) {
        values[i] = 0.0F;
      } else {
        const std::size_t cell = i - 2 * streams;
        values[i] = cell / streams == cell % streams ? 2.0F : -2.0F;
      }
    }
  } else {
    for (float& value : values)  // sinks and router biases
      value = 0.1F * random.normal();
  }
}

// Distinct experts for each token.
std::vector<std::int32_t> random_experts(const PlannedTensor& tensor,
                                         const ModelShape& shape,
                                         Random& random) {
  std::vector<std::int32_t> ids(tensor.rows() * tensor.columns());
  for (std::size_t row = 0; row < tensor.rows(); ++row) {
    const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(row * tensor.columns());
    for (auto id = begin; id != begin + static_cast<std::ptrdiff_t>(tensor.columns());) {
      *id = static_cast<std::int32_t>(random.below(shape.expert_count));
      if (std::find(begin, id, *id) == id) ++id;
    }
  }
  return ids;
}

// 1 / sqrt(inputs) keeps a matrix from changing the size of its input.
float deviation_of(const PlannedTensor& tensor) {
  switch (tensor.tensor_class) {
    case TensorClass::kEmbedding:
      return 1.0F;
    case TensorClass::kOutput:
      // Logits spread by about 3, so that sampling has something to choose from.
      return 3.0F / std::sqrt(static_cast<float>(tensor.columns()));
    default:
      if (tensor.name.ends_with("_ape.weight")) return 0.1F;
      return 1.0F / std::sqrt(static_cast<float>(tensor.columns()));
  }
}

class Synthesizer {
 public:
  Synthesizer(const SynthOptions& options, const LogSink& log, const ProgressSink& progress)
      : options_(options),
        progress_(progress),
        writer_(options.output),
        pool_(options.thread_count) {
    tensors_ = plan_main(options.shape);
    if (options.with_mtp) {
      const auto mtp = plan_mtp(options.shape);
      tensors_.insert(tensors_.end(), mtp.begin(), mtp.end());
    }
    options.recipe.check_choices(tensors_);
    write_shape_metadata(writer_, options.shape, options.with_mtp);
    tokenizer::write_gguf_vocabulary(
        writer_, options.tokenizer.empty()
                     ? byte_vocabulary(options.shape.vocab_size)
                     : read_vocabulary(options.tokenizer, options.shape.vocab_size));
    for (const PlannedTensor& tensor : tensors_) {
      types_.push_back(options.recipe.type_of(tensor, log));
      writer_.add_tensor(tensor.name, types_.back(), tensor.shape);
    }
  }

  void run() {
    writer_.begin_data();
    std::uint64_t done_bytes = 0;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (progress_) progress_(done_bytes, writer_.file_bytes(), tensors_[i].name);
      write(i);
      done_bytes += writer_.tensor_bytes(i);
    }
    writer_.commit();
  }

 private:
  // Every (tensor, task) has its own stream of numbers.
  Random random_for(std::size_t tensor, std::size_t task) const {
    Random mixer(options_.seed);
    const std::uint64_t first = mixer.next();
    Random tensor_mixer(first + tensor);
    return Random(tensor_mixer.next() + task);
  }

  void write(std::size_t index) {
    const PlannedTensor& tensor = tensors_[index];
    if (tensor.tensor_class == TensorClass::kVector) {
      std::vector<float> values(tensor.columns());
      Random random = random_for(index, 0);
      fill_vector(tensor, options_.shape, random, values);
      writer_.write_tensor(index, 0, std::as_bytes(std::span(values)));
    } else if (tensor.tensor_class == TensorClass::kIndices) {
      Random random = random_for(index, 0);
      const auto ids = random_experts(tensor, options_.shape, random);
      writer_.write_tensor(index, 0, std::as_bytes(std::span(ids)));
    } else {
      write_matrix(index);
    }
  }

  void write_matrix(std::size_t index) {
    const PlannedTensor& tensor = tensors_[index];
    const std::uint64_t row = row_bytes(types_[index], tensor.columns());
    const std::uint64_t total = writer_.tensor_bytes(index);
    const std::uint64_t task_bytes = std::max<std::uint64_t>(kTaskBytes / row, 1) * row;
    const float deviation = deviation_of(tensor);
    run_throwing(pool_, (total + task_bytes - 1) / task_bytes, [&](std::size_t task) {
      const std::uint64_t start = task * task_bytes;
      std::vector<std::byte> bytes(std::min(task_bytes, total - start));
      Random random = random_for(index, task);
      fill_random_blocks(types_[index], deviation, random, bytes);
      writer_.write_tensor(index, start, bytes);
    });
  }

  const SynthOptions& options_;
  const ProgressSink& progress_;
  gguf::Writer writer_;
  ThreadPool pool_;
  std::vector<PlannedTensor> tensors_;
  std::vector<ElementType> types_;
};

}  // namespace

void synthesize(const SynthOptions& options, const LogSink& log, const ProgressSink& progress) {
  Synthesizer(options, log, progress).run();
}

}  // namespace ds4::convert
