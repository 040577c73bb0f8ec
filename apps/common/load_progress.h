#pragma once
#include <cstdint>
#include <functional>

#include "common/terminal.h"

namespace ds4::app {

// Shows the loading of weights on standard error, in MiB: a bar on a tty, elsewhere a line for
// every tenth.  The line goes away with the last byte.  For OpenOptions::load_progress.
std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> show_loading(
    const Terminal& terminal);

// Whether an update from `before` to `now` of `total` passes into another of `parts` equal parts,
// or ends.
bool passes_part(std::uint64_t before, std::uint64_t now, std::uint64_t total, std::uint64_t parts);

}  // namespace ds4::app
