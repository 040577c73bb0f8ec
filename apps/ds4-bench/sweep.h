#pragma once
#include "options.h"
#include "table.h"

namespace ds4::bench {

// Loads the model, measures every number of users at every context, writes each line to standard
// output as it is known, then the files that were asked for.  Notes go to standard error.  Throws
// Error for what the outside can cause; lines measured by then are out.
void run_sweep(const Options& options);

// Shows two tables side by side and, when asked for, draws them into one picture.
void run_compare(const Options& options);

}  // namespace ds4::bench
