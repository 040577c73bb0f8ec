#include "common/load_progress.h"

#include <memory>

namespace ds4::app {

namespace {

constexpr std::uint64_t kBarParts = 200;
constexpr std::uint64_t kLineParts = 10;

}  // namespace

bool passes_part(std::uint64_t before,
                 std::uint64_t now,
                 std::uint64_t total,
                 std::uint64_t parts) {
  if (total == 0 || now <= before) return false;
  // Sizes of models times a few hundred stay far below 2^64.
  return now >= total || now * parts / total != before * parts / total;
}

std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> show_loading(
    const Terminal& terminal) {
  const std::uint64_t parts = terminal.is_tty ? kBarParts : kLineParts;
  return [line = std::make_shared<ProgressLine>(terminal, "loading, MiB"), parts,
          shown = std::uint64_t{0}](std::uint64_t done, std::uint64_t total) mutable {
    if (!passes_part(shown, done, total, parts)) return;
    shown = done;
    line->update(done >> 20, total >> 20);
    if (done >= total) line->clear();
  };
}

}  // namespace ds4::app
