#include "engine/snapshot.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <type_traits>

#include <fmt/format.h>

#include "base/error.h"

namespace ds4 {

namespace {

constexpr std::string_view kMagic = "DS4STATE";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kChecksumBytes = 8;

class Writer {
 public:
  void bytes(std::span<const std::byte> value) {
    out_.insert(out_.end(), value.begin(), value.end());
  }
  template <class T>
  void value(T number) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes(std::as_bytes(std::span(&number, 1)));
  }
  // Room for `count` bytes to be filled by the caller; valid until the next call.
  std::span<std::byte> room(std::size_t count) {
    out_.resize(out_.size() + count);
    return std::span(out_).last(count);
  }
  std::vector<std::byte> finish() {
    value(xxh3(out_));
    return std::move(out_);
  }

 private:
  std::vector<std::byte> out_;
};

class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : rest_(bytes) {}
  std::span<const std::byte> bytes(std::uint64_t count) {
    if (count > rest_.size())
      throw Error(ErrorCode::kBadFormat, "the saved state is cut short; it cannot be used");
    const auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  template <class T>
  T value() {
    T number{};
    std::memcpy(&number, bytes(sizeof(T)).data(), sizeof(T));
    return number;
  }
  std::size_t left() const { return rest_.size(); }

 private:
  std::span<const std::byte> rest_;
};

void require(bool holds, ErrorCode code, const std::string& message) {
  if (!holds) throw Error(code, message);
}

}  // namespace

std::vector<std::byte> write_snapshot(const SnapshotContents& contents,
                                      const Executor& executor,
                                      SequenceId sequence) {
  const auto length = static_cast<std::uint32_t>(contents.tokens.size());
  const auto sections = executor.layout().sections(length);
  Writer out;
  out.bytes(std::as_bytes(std::span(kMagic.data(), kMagic.size())));
  out.value(kVersion);
  out.value(static_cast<std::uint32_t>(executor.layout().codec()));
  out.bytes(std::as_bytes(std::span(contents.fingerprint)));
  out.value(length);
  out.value(static_cast<std::uint32_t>(contents.logits.size()));
  out.value(static_cast<std::uint32_t>(sections.size()));
  out.value(std::uint32_t{0});
  for (const TokenId token : contents.tokens)
    out.value(token.value());
  out.bytes(std::as_bytes(contents.logits));
  for (const StateSection& section : sections) {
    out.value(static_cast<std::uint32_t>(section.part));
    out.value(section.layer.value());
    out.value(section.first);
    out.value(section.count);
    out.value(static_cast<std::uint64_t>(section.row_bytes));
    executor.read_state(sequence, section, out.room(section.bytes()));
  }
  return out.finish();
}

Snapshot::Snapshot(std::span<const std::byte> bytes,
                   const Sha256Digest& fingerprint,
                   const Executor& executor,
                   std::uint32_t context) {
  require(bytes.size() > kMagic.size() + kChecksumBytes &&
              std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0,
          ErrorCode::kBadFormat, "not a saved state of this program");
  std::uint64_t checksum = 0;
  std::memcpy(&checksum, bytes.last(kChecksumBytes).data(), kChecksumBytes);
  const auto body = bytes.first(bytes.size() - kChecksumBytes);
  require(xxh3(body) == checksum, ErrorCode::kBadFormat,
          "the saved state is damaged: its checksum does not match");
  Cursor in(body.subspan(kMagic.size()));
  const auto version = in.value<std::uint32_t>();
  require(version == kVersion, ErrorCode::kUnsupported,
          fmt::format("the saved state has version {}; this program reads {}", version, kVersion));
  require(in.value<std::uint32_t>() == static_cast<std::uint32_t>(executor.layout().codec()),
          ErrorCode::kUnsupported, "the saved state uses another row codec (--kv)");
  require(
      std::memcmp(in.bytes(fingerprint.size()).data(), fingerprint.data(), fingerprint.size()) == 0,
      ErrorCode::kUnsupported, "the saved state belongs to another model file");
  const auto length = in.value<std::uint32_t>();
  require(length < context, ErrorCode::kContextOverflow,
          fmt::format("the saved state has {} tokens; the context holds {}", length, context));
  const auto logit_count = in.value<std::uint32_t>();
  require(logit_count == 0 || logit_count == executor.config().vocab_size, ErrorCode::kBadFormat,
          "the saved state's logits have the wrong size");
  const auto section_count = in.value<std::uint32_t>();
  in.value<std::uint32_t>();
  const auto token_bytes = in.bytes(std::uint64_t{length} * sizeof(std::int32_t));
  for (std::uint32_t i = 0; i < length; ++i) {
    std::int32_t id = 0;
    std::memcpy(&id, token_bytes.data() + i * sizeof(id), sizeof(id));
    tokens_.push_back(TokenId{id});
  }
  const auto logit_bytes = in.bytes(std::uint64_t{logit_count} * sizeof(float));
  logits_.resize(logit_count);
  if (logit_count != 0) std::memcpy(logits_.data(), logit_bytes.data(), logit_bytes.size());
  const auto expected = executor.layout().sections(length);
  bool matches = section_count == expected.size();
  for (std::size_t i = 0; matches && i < expected.size(); ++i) {
    const StateSection& e = expected[i];
    matches = in.value<std::uint32_t>() == static_cast<std::uint32_t>(e.part);
    matches = in.value<std::uint32_t>() == e.layer.value() && matches;
    matches = in.value<std::uint32_t>() == e.first && matches;
    matches = in.value<std::uint32_t>() == e.count && matches;
    matches = in.value<std::uint64_t>() == e.row_bytes && matches;
    if (matches) sections_.push_back({e, in.bytes(e.bytes())});
  }
  require(matches && in.left() == 0, ErrorCode::kBadFormat,
          "the saved state's sections are not those of this model");
}

void Snapshot::restore(Executor& executor, SequenceId sequence) const {
  executor.begin_restore(sequence, static_cast<std::uint32_t>(tokens_.size()));
  for (const Section& section : sections_)
    executor.write_state(sequence, section.shape, section.bytes);
}

}  // namespace ds4
