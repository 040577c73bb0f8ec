#include "convert/checkpoint_converter.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/thread_pool.h"
#include "convert/imatrix.h"
#include "convert/model_shape.h"
#include "convert/parallel.h"
#include "convert/rows.h"
#include "convert/safetensors.h"
#include "convert/vocabulary.h"
#include "gguf/writer.h"
#include "quant/codec.h"

namespace ds4::convert {

namespace {

// One task encodes about this much f32 input, which stays in a core's cache.
constexpr std::uint64_t kTaskBytes = std::uint64_t{1} << 19;

// A tensor of the file, ready to be written.
struct Job {
  PlannedTensor tensor;
  ElementType type;
  std::vector<RowSource> slabs;  // one per expert, or one; empty for a hash table
  std::size_t writer_index = 0;
};

// Values that F16 cannot hold would become infinite.
void check_range(const Job& job, std::span<const float> values) {
  if (job.type != ElementType::kF16) return;
  constexpr float kF16Largest = 65504.0F;
  for (const float value : values) {
    if (std::abs(value) <= kF16Largest) continue;
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("tensor {} has the value {}, which F16 cannot hold; choose --type {}=bf16",
                    job.tensor.name, value, job.tensor.name));
  }
}

// One output file.
struct OutputFile {
  explicit OutputFile(const std::filesystem::path& path) : writer(path) {}
  gguf::Writer writer;
  std::vector<Job> jobs;
};

class Converter {
 public:
  Converter(const ConvertOptions& options, const LogSink& log, const ProgressSink& progress)
      : options_(options),
        log_(log),
        progress_(progress),
        checkpoint_(options.checkpoint),
        shape_(read_hf_config(options.checkpoint / "config.json")),
        pool_(options.thread_count) {
    if (!options.imatrix.empty()) imatrix_ = Imatrix(options.imatrix);
  }

  void run() {
    std::vector<PlannedTensor> main = plan_main(shape_);
    std::vector<PlannedTensor> mtp = plan_mtp_present();
    std::vector<PlannedTensor> all = main;
    all.insert(all.end(), mtp.begin(), mtp.end());
    options_.recipe.check_choices(all);

    const bool apart = !options_.mtp_output.empty();
    if (apart && mtp.empty()) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{} has no MTP block to write to {}", options_.checkpoint.string(),
                              options_.mtp_output.string()));
    }
    add_file(options_.output, apart ? main : all, !apart && !mtp.empty());
    if (apart) add_file(options_.mtp_output, mtp, true);
    for (const auto& file : files_)
      file->writer.begin_data();
    for (const auto& file : files_)
      total_bytes_ += file->writer.file_bytes();
    for (const auto& file : files_)
      for (const Job& job : file->jobs)
        write(*file, job);
    for (const auto& file : files_)
      file->writer.commit();
  }

 private:
  // The MTP block's tensors when the checkpoint has one of this form.
  std::vector<PlannedTensor> plan_mtp_present() {
    if (shape_.mtp_layer_count != 0 && checkpoint_.find("mtp.0.e_proj.weight") == nullptr) {
      ds4::log(log_, LogLevel::kWarning,
               "config.json announces MTP layers, but the checkpoint holds none of the known form; "
               "the file will have no draft block");
      return {};
    }
    if (shape_.mtp_layer_count == 0) return {};
    if (shape_.mtp_layer_count > 1) {
      ds4::log(log_, LogLevel::kWarning,
               fmt::format("the checkpoint has {} MTP layers; only the first is converted",
                           shape_.mtp_layer_count));
    }
    shape_.mtp_layer_count = 1;
    shape_.compress_ratios.resize(shape_.layer_count + 1, 0);
    return plan_mtp(shape_);
  }

  void add_file(const std::filesystem::path& path,
                const std::vector<PlannedTensor>& tensors,
                bool has_mtp) {
    auto& file = *files_.emplace_back(std::make_unique<OutputFile>(path));
    write_shape_metadata(file.writer, shape_, has_mtp);
    write_tokenizer(file.writer);
    imatrix_.write_metadata(file.writer);
    for (const PlannedTensor& tensor : tensors) {
      if (tensor.optional && checkpoint_.find(tensor.source) == nullptr) continue;
      file.jobs.push_back(make_job(tensor));
      Job& job = file.jobs.back();
      job.writer_index = file.writer.add_tensor(tensor.name, job.type, tensor.shape);
    }
  }

  void write_tokenizer(gguf::Writer& writer) {
    const auto path = options_.checkpoint / "tokenizer.json";
    if (!std::filesystem::exists(path)) {
      ds4::log(log_, LogLevel::kWarning,
               fmt::format("{} is not there: the file will have no vocabulary", path.string()));
      return;
    }
    if (!vocabulary_) vocabulary_ = read_vocabulary(path, shape_.vocab_size);
    tokenizer::write_gguf_vocabulary(writer, *vocabulary_);
  }

  // Opens the sources, so that everything missing or misshapen shows before anything is written.
  Job make_job(const PlannedTensor& tensor) const {
    Job job{tensor, options_.recipe.type_of(tensor, log_), {}, 0};
    if (tensor.tensor_class == TensorClass::kIndices) return job;
    for (std::uint64_t slab = 0; slab < tensor.slabs(); ++slab)
      job.slabs.emplace_back(checkpoint_, tensor.source_of(slab), tensor.rows(), tensor.columns());
    return job;
  }

  void write(OutputFile& file, const Job& job) {
    if (progress_) progress_(done_bytes_, total_bytes_, job.tensor.name);
    const std::uint64_t bytes = file.writer.tensor_bytes(job.writer_index);
    if (job.slabs.empty()) {
      const auto ids = read_expert_ids(checkpoint_, job.tensor.source, job.tensor.rows(),
                                       job.tensor.columns(), shape_.expert_count);
      file.writer.write_tensor(job.writer_index, 0, std::as_bytes(std::span(ids)));
    } else {
      write_rows(file.writer, job);
    }
    done_bytes_ += bytes;
    ds4::log(log_, LogLevel::kDebug,
             fmt::format("{}: {} to {}, {} bytes", job.tensor.name,
                         job.slabs.empty() ? "ids" : source_type_name(job.slabs[0].type()),
                         element_type_info(job.type).name, bytes));
  }

  void write_rows(gguf::Writer& writer, const Job& job) {
    const PlannedTensor& tensor = job.tensor;
    const std::uint64_t task_rows = std::clamp<std::uint64_t>(
        kTaskBytes / (tensor.columns() * sizeof(float)), 1, tensor.rows());
    const std::uint64_t slab_tasks = (tensor.rows() + task_rows - 1) / task_rows;
    const std::size_t encoded_bytes = row_bytes(job.type, tensor.columns());
    run_throwing(pool_, slab_tasks * tensor.slabs(), [&](std::size_t task) {
      const std::uint64_t slab = task / slab_tasks;
      const std::uint64_t first = task % slab_tasks * task_rows;
      const std::uint64_t count = std::min(task_rows, tensor.rows() - first);
      const auto importance = imatrix_.find(tensor, slab);
      std::vector<float> values(tensor.columns());
      std::vector<std::byte> encoded(count * encoded_bytes);
      for (std::uint64_t row = 0; row < count; ++row) {
        job.slabs[slab].read(first + row, values);
        check_range(job, values);
        quant::encode_row(job.type, values,
                          std::span(encoded).subspan(row * encoded_bytes, encoded_bytes),
                          importance);
      }
      writer.write_tensor(job.writer_index, (slab * tensor.rows() + first) * encoded_bytes,
                          encoded);
    });
  }

  const ConvertOptions& options_;
  const LogSink& log_;
  const ProgressSink& progress_;
  Checkpoint checkpoint_;
  ModelShape shape_;
  ThreadPool pool_;
  Imatrix imatrix_;
  std::optional<tokenizer::Vocabulary> vocabulary_;
  std::vector<std::unique_ptr<OutputFile>> files_;
  std::uint64_t done_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace

void convert_checkpoint(const ConvertOptions& options,
                        const LogSink& log,
                        const ProgressSink& progress) {
  Converter(options, log, progress).run();
}

}  // namespace ds4::convert
