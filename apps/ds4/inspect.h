#pragma once
#include <filesystem>
#include <string>

namespace ds4::app {

// What a model file is: dimensions, and tensors by type with their bytes.  Reads the header alone.
// Throws as opening the model does.
std::string inspect_text(const std::filesystem::path& path);

}  // namespace ds4::app
