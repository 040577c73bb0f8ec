#include "cuda/weights.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/thread_pool.h"
#include "quant/codec.h"
#include "quant/iq2_xxs_codebook.h"

namespace ds4::cuda {

namespace {

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kChunkBytes = std::size_t{64} << 20;  // of one copy
constexpr std::size_t kGridBytes = sizeof(quant::kIq2XxsGrid);

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

bool is_plain(ElementType type) {
  return element_type_info(type).values == 1;
}

// The planes of a weight, addresses left out.
Matrix shape_of(const Weight& weight) {
  Matrix m;
  m.type = weight.type;
  m.slabs = static_cast<std::uint32_t>(weight.slabs);
  m.rows = static_cast<std::uint32_t>(weight.rows);
  m.columns = static_cast<std::uint32_t>(weight.columns);
  const std::size_t blocks = weight.columns / element_type_info(weight.type).values;
  const PlaneSizes sizes = plane_sizes(weight.type);
  m.codes_bytes = static_cast<std::uint32_t>(blocks * sizes.codes);
  m.scales_bytes = static_cast<std::uint32_t>(blocks * sizes.scales);
  return m;
}

// Position terms are read value by value, so they become f32.
Matrix shape_as_f32(const Weight& weight) {
  Weight plain = weight;
  plain.type = ElementType::kF32;
  return shape_of(plain);
}

std::size_t planes_bytes(const Matrix& m) {
  const std::size_t rows = std::size_t{m.slabs} * m.rows;
  return aligned(rows * m.codes_bytes) + aligned(rows * m.scales_bytes);
}

}  // namespace

class DeviceWeights::Uploader {
 public:
  Uploader(Stream& stream,
           const DeviceBuffer& arena,
           std::uint32_t thread_count,
           std::uint64_t total,
           const Progress& progress)
      : stream_(stream),
        next_(arena.data()),
        pool_(thread_count),
        total_(total),
        progress_(progress) {
    for (Slot& slot : slots_) {
      slot.host = PinnedBuffer(kChunkBytes);
      slot.device = DeviceBuffer(kChunkBytes, "loading");
    }
  }

  ~Uploader() = default;

  Matrix matrix(const Weight& weight) {
    if (!weight.present()) return {};
    Matrix m = place(shape_of(weight));
    const std::size_t row_bytes = weight.row_bytes();
    const std::size_t rows = weight.slabs * weight.rows;
    const std::size_t chunk_rows = std::max<std::size_t>(kChunkBytes / row_bytes, 1);
    DS4_CHECK(row_bytes <= kChunkBytes);
    for (std::size_t first = 0; first < rows; first += chunk_rows) {
      const std::size_t count = std::min(chunk_rows, rows - first);
      const auto source = weight.bytes.subspan(first * row_bytes, count * row_bytes);
      if (is_plain(weight.type)) {
        send(source, const_cast<std::byte*>(m.codes) + first * row_bytes);
      } else {
        const std::byte* staged = send(source, nullptr);
        repack_rows(stream_, staged, m, first, count);
        finish();
      }
    }
    return m;
  }

  Matrix as_f32(const Weight& weight) {
    Matrix m = place(shape_as_f32(weight));
    std::vector<float> values(weight.rows * weight.columns);
    for (std::size_t r = 0; r < weight.rows; ++r)
      quant::decode_row(weight.type, weight.row(0, r),
                        std::span(values).subspan(r * weight.columns, weight.columns));
    send(std::as_bytes(std::span(values)), const_cast<std::byte*>(m.codes));
    return m;
  }

  template <class T = float>
  const T* vector(const Weight& weight) {
    return reinterpret_cast<const T*>(matrix(weight).codes);
  }

  const std::byte* bytes(std::span<const std::byte> source) {
    std::byte* to = next_;
    next_ += aligned(source.size());
    send(source, to);
    return to;
  }

  void wait() { stream_.synchronize("loading weights"); }

 private:
  struct Slot {
    PinnedBuffer host;
    DeviceBuffer device;
    Mark done;
    bool used = false;
  };

  Matrix place(Matrix m) {
    const std::size_t rows = std::size_t{m.slabs} * m.rows;
    m.codes = next_;
    m.scales = next_ + aligned(rows * m.codes_bytes);
    next_ += planes_bytes(m);
    return m;
  }

  // Copies at most a chunk to `to`, or to the slot's staging memory when null.
  const std::byte* send(std::span<const std::byte> source, std::byte* to) {
    Slot& slot = slots_[turn_ % 2];
    if (slot.used) slot.done.wait();
    constexpr std::size_t kSlice = std::size_t{1} << 20;
    pool_.run((source.size() + kSlice - 1) / kSlice, [&](std::size_t i) {
      const auto part = source.subspan(i * kSlice, std::min(kSlice, source.size() - i * kSlice));
      std::memcpy(slot.host.data() + i * kSlice, part.data(), part.size());
    });
    std::byte* target = to == nullptr ? slot.device.data() : to;
    stream_.upload(target, slot.host.data(), source.size());
    done_ += source.size();
    if (progress_) progress_(done_, total_);
    if (to != nullptr) finish();
    return target;
  }

  void finish() {
    Slot& slot = slots_[turn_++ % 2];
    slot.done.set(stream_);
    slot.used = true;
  }

  Stream& stream_;
  std::byte* next_;
  ThreadPool pool_;
  Slot slots_[2];
  std::size_t turn_ = 0;
  std::uint64_t done_ = 0;
  std::uint64_t total_;
  const Progress& progress_;
};

namespace {

// Visits every tensor as the uploader lays it out.
std::uint64_t sum_of_planes(const Weights& weights) {
  std::uint64_t total = aligned(kGridBytes);
  weights.for_each([&](const Weight& weight) { total += planes_bytes(shape_of(weight)); });
  const auto add_ape = [&](const Weight& ape) {
    total += planes_bytes(shape_as_f32(ape)) - planes_bytes(shape_of(ape));
  };
  for (const LayerWeights& layer : weights.layers) {
    if (layer.compressor) add_ape(layer.compressor->ape);
    if (layer.indexer) add_ape(layer.indexer->compressor.ape);
  }
  return total;
}

}  // namespace

std::uint64_t DeviceWeights::planned_bytes(const Weights& weights) {
  return sum_of_planes(weights);
}

DeviceLayer DeviceWeights::upload_layer(Uploader& u, const LayerWeights& w) {
  const auto hc = [&](const HcWeights& h) {
    return DeviceHc{u.matrix(h.fn), u.vector(h.base), u.vector(h.scale)};
  };
  const auto compressor = [&](const CompressorWeights& c) {
    return DeviceCompressor{u.as_f32(c.ape), u.matrix(c.kv), u.matrix(c.gate), u.vector(c.norm)};
  };
  DeviceLayer d;
  d.attention_hc = hc(w.attention_hc);
  d.ffn_hc = hc(w.ffn_hc);
  d.attention_norm = u.vector(w.attention_norm);
  d.ffn_norm = u.vector(w.ffn_norm);
  d.query_a = u.matrix(w.query_a);
  d.query_a_norm = u.vector(w.query_a_norm);
  d.query_b = u.matrix(w.query_b);
  d.key_value = u.matrix(w.key_value);
  d.key_value_norm = u.vector(w.key_value_norm);
  d.sinks = u.vector(w.sinks);
  d.output_a = u.matrix(w.output_a);
  d.output_b = u.matrix(w.output_b);
  if (w.compressor) d.compressor = compressor(*w.compressor);
  if (w.indexer) {
    d.index_query = u.matrix(w.indexer->query);
    d.index_proj = u.matrix(w.indexer->proj);
    d.index_compressor = compressor(w.indexer->compressor);
  }
  d.router = u.matrix(w.router);
  if (w.router_bias.present()) d.router_bias = u.vector(w.router_bias);
  if (w.hash_table.present()) d.hash_table = u.vector<std::int32_t>(w.hash_table);
  d.expert_gate = u.matrix(w.expert_gate);
  d.expert_up = u.matrix(w.expert_up);
  d.expert_down = u.matrix(w.expert_down);
  d.shared_gate = u.matrix(w.shared_gate);
  d.shared_up = u.matrix(w.shared_up);
  d.shared_down = u.matrix(w.shared_down);
  return d;
}

DeviceWeights::DeviceWeights(Stream& stream,
                             const Weights& weights,
                             std::uint32_t thread_count,
                             const Progress& progress)
    : arena_(sum_of_planes(weights), "the weights") {
  Uploader u(stream, arena_, thread_count, arena_.bytes(), progress);
  grid = u.bytes(std::as_bytes(std::span(quant::kIq2XxsGrid)));
  const auto upload_head = [&](const HeadWeights& h) {
    return DeviceHead{{u.matrix(h.hc.fn), u.vector(h.hc.base), u.vector(h.hc.scale)},
                      u.vector(h.norm)};
  };
  embedding = u.matrix(weights.embedding);
  for (const LayerWeights& layer : weights.layers)
    layers.push_back(upload_layer(u, layer));
  if (weights.output.present()) {
    head = upload_head(weights.head);
    output = u.matrix(weights.output);
  }
  if (weights.mtp) {
    DeviceMtp m;
    m.token_projection = u.matrix(weights.mtp->token_projection);
    m.stream_projection = u.matrix(weights.mtp->stream_projection);
    m.token_norm = u.vector(weights.mtp->token_norm);
    m.stream_norm = u.vector(weights.mtp->stream_norm);
    m.head = upload_head(weights.mtp->head);
    mtp = m;
    mtp_layer = upload_layer(u, weights.mtp->block);
  }
  u.wait();
  if (progress) progress(arena_.bytes(), arena_.bytes());
}

}  // namespace ds4::cuda
