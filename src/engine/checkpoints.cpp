#include "engine/checkpoints.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"

namespace ds4 {

namespace {

std::size_t total_bytes(const std::vector<StateSection>& sections) {
  std::size_t total = 0;
  for (const StateSection& section : sections)
    total += section.bytes();
  return total;
}

// A length at which a copy is as large as they get: past the first window every multiple of the
// interval has sections of the same size.
std::uint32_t typical_length(std::uint32_t window, std::uint32_t interval) {
  return (window / interval + 2) * interval;
}

}  // namespace

std::uint64_t Checkpoints::planned_bytes(const StateLayout& layout,
                                         std::uint32_t window,
                                         std::uint32_t interval,
                                         std::uint32_t count_max) {
  return std::uint64_t{count_max} *
         total_bytes(layout.frontier_sections(typical_length(window, interval)));
}

Checkpoints::Checkpoints(Executor& executor,
                         SequenceId sequence,
                         std::uint32_t interval,
                         std::uint32_t count_max)
    : executor_(executor),
      sequence_(sequence),
      count_max_(count_max) {
  kept_.reserve(count_max_);
  executor_.layout().frontier_sections(typical_length(executor.config().window, interval),
                                       sections_);
  for (std::size_t i = 0; i < count_max_; ++i)
    spare_.emplace_back().reserve(total_bytes(sections_));
}

std::vector<std::byte> Checkpoints::take_buffer() {
  if (!spare_.empty()) {
    std::vector<std::byte> buffer = std::move(spare_.back());
    spare_.pop_back();
    return buffer;
  }
  // The gap that dropping checkpoint i would leave, relative to its distance from the newest.
  const double newest = kept_.back().length;
  std::size_t victim = 0;
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i + 1 < kept_.size(); ++i) {
    const double before = i == 0 ? 0 : kept_[i - 1].length;
    const double gap = (kept_[i + 1].length - before) / (newest - before + 1);
    if (gap < least) {
      least = gap;
      victim = i;
    }
  }
  std::vector<std::byte> buffer = std::move(kept_[victim].bytes);
  kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(victim));
  return buffer;
}

void Checkpoints::save() {
  const std::uint32_t length = executor_.length(sequence_);
  if (count_max_ == 0 || (!kept_.empty() && kept_.back().length >= length)) return;
  executor_.layout().frontier_sections(length, sections_);
  std::vector<std::byte> bytes = take_buffer();
  bytes.resize(total_bytes(sections_));
  std::size_t offset = 0;
  for (const StateSection& section : sections_) {
    executor_.read_state(sequence_, section, std::span(bytes).subspan(offset, section.bytes()));
    offset += section.bytes();
  }
  kept_.push_back({length, std::move(bytes)});
}

void Checkpoints::drop_beyond(std::uint32_t length) {
  while (!kept_.empty() && kept_.back().length > length) {
    spare_.push_back(std::move(kept_.back().bytes));
    kept_.pop_back();
  }
}

std::optional<std::uint32_t> Checkpoints::restore(std::uint32_t length) {
  drop_beyond(length);
  if (kept_.empty()) return std::nullopt;
  const Checkpoint& checkpoint = kept_.back();
  executor_.begin_restore(sequence_, checkpoint.length);
  std::size_t offset = 0;
  for (const StateSection& section : executor_.layout().frontier_sections(checkpoint.length)) {
    executor_.write_state(sequence_, section,
                          std::span(checkpoint.bytes).subspan(offset, section.bytes()));
    offset += section.bytes();
  }
  DS4_CHECK(offset == checkpoint.bytes.size());
  return checkpoint.length;
}

std::vector<std::uint32_t> Checkpoints::lengths() const {
  std::vector<std::uint32_t> all;
  for (const Checkpoint& checkpoint : kept_)
    all.push_back(checkpoint.length);
  return all;
}

const std::vector<std::byte>* Checkpoints::find(std::uint32_t length) const {
  for (const Checkpoint& checkpoint : kept_)
    if (checkpoint.length == length) return &checkpoint.bytes;
  return nullptr;
}

}  // namespace ds4
