#include "kvstore/engine_state.h"

#include <cstring>

#include <fmt/format.h>

#include "base/error.h"
#include "engine/prompt_key.h"

namespace ds4::kvstore {

namespace {

// Raised when the meaning of any stored row's bytes changes.
constexpr std::uint32_t kLayoutVersion = 1;

StatePart part_of(ArrayKind kind) {
  switch (kind) {
    case ArrayKind::kCompressedRows:
      return StatePart::kCompressed;
    case ArrayKind::kIndexKeys:
      return StatePart::kIndexKeys;
    case ArrayKind::kWindow:
      return StatePart::kWindow;
    case ArrayKind::kFrontierPrevious:
    case ArrayKind::kFrontierCurrent:
      return StatePart::kFrontier;
    case ArrayKind::kIndexFrontierPrevious:
    case ArrayKind::kIndexFrontierCurrent:
      return StatePart::kIndexFrontier;
    case ArrayKind::kStreams:
      return StatePart::kStreams;
    case ArrayKind::kLogits:
      break;
  }
  DS4_CHECK(false);
}

class LayoutBuilder {
 public:
  explicit LayoutBuilder(const Executor& executor)
      : config_(executor.config()),
        source_(executor.layout()) {
    layout_.version = kLayoutVersion;
    layout_.codec = source_.codec() == RowCodec::kPacked ? "packed" : "exact";
  }

  StateLayout build(bool has_mtp) {
    for (std::uint32_t layer = 0; layer < config_.layer_count; ++layer)
      add_layer(layer);
    if (has_mtp) {
      // The draft block makes a token's row when the next token is known.
      add(ArrayKind::kWindow, config_.layer_count, CarryRule::kComplete, 1, config_.window, 1);
      add(ArrayKind::kStreams, 0, CarryRule::kComplete, 1, 1);
    }
    layout_.carries.push_back({.kind = ArrayKind::kLogits,
                               .layer = 0,
                               .rule = CarryRule::kComplete,
                               .place = CarryPlace::kTailOnly,
                               .period = 1,
                               .rows_max = 1,
                               .row_bytes = config_.vocab_size * 4});
    return std::move(layout_);
  }

 private:
  void add_layer(std::uint32_t layer) {
    const std::uint32_t ratio = config_.layers[layer].ratio;
    add(ArrayKind::kWindow, layer, CarryRule::kComplete, 1, config_.window);
    if (ratio == 0) return;
    layout_.rows.push_back(
        {ArrayKind::kCompressedRows, layer, ratio, row_bytes(ArrayKind::kCompressedRows, layer)});
    const bool overlaps = config_.layers[layer].kind() == LayerKind::kIndexed;
    if (overlaps)
      layout_.rows.push_back(
          {ArrayKind::kIndexKeys, layer, ratio, row_bytes(ArrayKind::kIndexKeys, layer)});
    if (overlaps) {
      add(ArrayKind::kFrontierPrevious, layer, CarryRule::kComplete, ratio, ratio);
      add(ArrayKind::kIndexFrontierPrevious, layer, CarryRule::kComplete, ratio, ratio);
      add(ArrayKind::kIndexFrontierCurrent, layer, CarryRule::kPartial, ratio, 0);
    }
    add(ArrayKind::kFrontierCurrent, layer, CarryRule::kPartial, ratio, 0);
  }

  void add(ArrayKind kind,
           std::uint32_t layer,
           CarryRule rule,
           std::uint32_t period,
           std::uint32_t rows_max,
           std::uint32_t lag = 0) {
    layout_.carries.push_back({.kind = kind,
                               .layer = layer,
                               .rule = rule,
                               .place = CarryPlace::kEveryState,
                               .period = period,
                               .rows_max = rows_max,
                               .row_bytes = row_bytes(kind, layer),
                               .lag = lag});
  }

  std::uint32_t row_bytes(ArrayKind kind, std::uint32_t layer) const {
    return static_cast<std::uint32_t>(source_.row_bytes(part_of(kind), LayerIndex{layer}));
  }

  const ModelConfig& config_;
  const ds4::StateLayout& source_;
  StateLayout layout_;
};

StateSection section_of(const RowArray& array, std::uint64_t row_begin, std::size_t byte_count) {
  return {.part = part_of(array.kind),
          .layer = LayerIndex{array.layer},
          .first = static_cast<std::uint32_t>(row_begin),
          .count = static_cast<std::uint32_t>(byte_count / array.row_bytes),
          .row_bytes = array.row_bytes};
}

StateSection section_of(const CarryArray& array, std::uint64_t token_count) {
  return {.part = part_of(array.kind),
          .layer = LayerIndex{array.layer},
          .first = static_cast<std::uint32_t>(first_row(array, token_count)),
          .count = static_cast<std::uint32_t>(row_count(array, token_count)),
          .row_bytes = array.row_bytes};
}

// Copies `wanted` out of a checkpoint, whose sections lie end to end.
void copy_from_checkpoint(const std::vector<StateSection>& sections,
                          std::span<const std::byte> bytes,
                          const StateSection& wanted,
                          std::span<std::byte> out) {
  std::size_t offset = 0;
  for (const StateSection& section : sections) {
    const bool holds = section.part == wanted.part && section.layer == wanted.layer &&
                       section.first <= wanted.first &&
                       section.first + section.count >= wanted.first + wanted.count;
    if (holds) {
      offset += (wanted.first - section.first) * section.row_bytes;
      DS4_CHECK(offset + out.size() <= bytes.size());
      std::memcpy(out.data(), bytes.data() + offset, out.size());
      return;
    }
    offset += section.bytes();
  }
  DS4_CHECK(false);
}

}  // namespace

StateLayout layout_of(const Executor& executor) {
  return LayoutBuilder(executor).build(executor.info().has_mtp);
}

ModelIdentity identity_of(Engine& engine) {
  ModelIdentity identity;
  identity.name = engine.info().name.substr(0, 63);
  identity.layout = layout_of(engine.executor());
  identity.fingerprint = engine.info().fingerprint;
  const Steering& steering = engine.steering();
  if (steering.attention_scale == 0 && steering.ffn_scale == 0) return identity;
  Sha256 hash;
  hash.update(std::as_bytes(std::span(identity.fingerprint)));
  hash.update(std::as_bytes(std::span(steering.directions)));
  hash.update(std::as_bytes(std::span(&steering.attention_scale, 1)));
  hash.update(std::as_bytes(std::span(&steering.ffn_scale, 1)));
  identity.fingerprint = hash.finish();
  return identity;
}

TokenText token_text(const tokenizer::Tokenizer& tokenizer, std::span<const TokenId> tokens) {
  TokenText result;
  result.token_bytes.reserve(tokens.size());
  for (const TokenId token : tokens) {
    const std::size_t before = result.text.size();
    append_token_key(result.text, tokenizer, token);
    result.token_bytes.push_back(static_cast<std::uint32_t>(result.text.size() - before));
  }
  return result;
}

SessionSource::SessionSource(Session& session, const StateLayout& layout)
    : session_(session),
      executor_(session.engine().executor()),
      layout_(layout) {}

void SessionSource::read_rows(std::size_t array_index,
                              std::uint64_t row_begin,
                              std::span<std::byte> out) {
  const RowArray& array = layout_.rows[array_index];
  executor_.read_state(session_.sequence(), section_of(array, row_begin, out.size()), out);
}

bool SessionSource::has_carry(std::uint64_t token_count) const {
  if (token_count == session_.length()) return true;
  return session_.checkpoints().find(static_cast<std::uint32_t>(token_count)) != nullptr;
}

bool SessionSource::has_logits(std::uint64_t token_count) const {
  return token_count == session_.length() && session_.has_logits();
}

void SessionSource::read_carry(std::size_t array_index,
                               std::uint64_t token_count,
                               std::span<std::byte> out) {
  const CarryArray& array = layout_.carries[array_index];
  if (array.kind == ArrayKind::kLogits) {
    const auto logits = std::as_bytes(session_.logits());
    DS4_CHECK(logits.size() == out.size());
    std::memcpy(out.data(), logits.data(), out.size());
    return;
  }
  const StateSection wanted = section_of(array, token_count);
  if (token_count == session_.length())
    return executor_.read_state(session_.sequence(), wanted, out);
  const auto length = static_cast<std::uint32_t>(token_count);
  const std::vector<std::byte>* checkpoint = session_.checkpoints().find(length);
  DS4_CHECK(checkpoint != nullptr);
  copy_from_checkpoint(executor_.layout().frontier_sections(length), *checkpoint, wanted, out);
}

SessionSink::SessionSink(Session& session, const StateLayout& layout)
    : session_(session),
      executor_(session.engine().executor()),
      layout_(layout) {}

SessionSink::~SessionSink() {
  if (open_) session_.clear();
}

void SessionSink::begin(std::uint64_t token_count) {
  if (token_count >= session_.context()) {
    throw Error(ErrorCode::kContextOverflow,
                fmt::format("the stored state has {} tokens; the context holds {}", token_count,
                            session_.context()));
  }
  session_.clear();
  open_ = true;
  token_count_ = token_count;
  logits_.clear();
  executor_.begin_restore(session_.sequence(), static_cast<std::uint32_t>(token_count));
}

void SessionSink::write_rows(std::size_t array_index,
                             std::uint64_t row_begin,
                             std::span<const std::byte> bytes) {
  const RowArray& array = layout_.rows[array_index];
  executor_.write_state(session_.sequence(), section_of(array, row_begin, bytes.size()), bytes);
}

void SessionSink::write_carry(std::size_t array_index, std::span<const std::byte> bytes) {
  const CarryArray& array = layout_.carries[array_index];
  if (array.kind == ArrayKind::kLogits) {
    logits_.resize(bytes.size() / sizeof(float));
    std::memcpy(logits_.data(), bytes.data(), bytes.size());
    return;
  }
  if (!bytes.empty())
    executor_.write_state(session_.sequence(), section_of(array, token_count_), bytes);
}

void SessionSink::finish(std::span<const TokenId> tokens) {
  DS4_CHECK(open_ && tokens.size() == token_count_);
  session_.adopt(tokens, logits_);
  open_ = false;
}

}  // namespace ds4::kvstore
