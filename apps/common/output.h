#pragma once
#include <cstdio>
#include <string_view>

namespace ds4::app {

// Writes to standard output and hands it to the reader at once.  Throws Error(kIo) when the disk is
// full or the reader is gone: what a program was asked to print must not get lost in silence.
void write_out(std::string_view text);

// Writes to standard error; a failure has nowhere to go.
void write_note(std::string_view text);

}  // namespace ds4::app
