#pragma once
#include "base/log.h"
#include "convert/checkpoint_converter.h"

// Prints warnings and errors to stderr, and with `verbose` everything.
ds4::LogSink stderr_log(bool verbose);

// Redraws one line on stderr when that is a terminal, at most a few times a second; empty
// otherwise.
ds4::convert::ProgressSink terminal_progress();
