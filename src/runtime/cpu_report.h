#pragma once
#include <cstdint>

#include "backend/machine_report.h"

namespace ds4 {

// The processor, and the rate at which `thread_count` threads (0: one per physical core) copy
// memory; takes half a second and 512 MiB.  Reads /proc and /sys; what they lack stays empty.
MachineReport report_cpu(std::uint32_t thread_count);

// The mean clock of all processors.
MachineState cpu_state();

}  // namespace ds4
