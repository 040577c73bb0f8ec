#pragma once
#include "backend/machine_report.h"

namespace ds4::cuda {

// Describes card 0 and measures its copies, with 1 GiB of it for a tenth of a second.  Throws
// Error(kUnsupported) when there is none, Error(kOutOfMemory) when that much is not free.
MachineReport report_card();

// Clocks and the like of card 0, from the driver's management library; where that is missing only
// the memory in use.
MachineState card_state();

}  // namespace ds4::cuda
