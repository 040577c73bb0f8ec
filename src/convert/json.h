#pragma once
#include <string_view>

#include <nlohmann/json.hpp>

namespace ds4::convert {

// JSON from outside.  Internal to this module's .cpp files, which alone pay for the library.
using Json = nlohmann::json;

// Parses an object.  Throws Error(kBadFormat) naming `file` when the text is not JSON, not an
// object, or has a key twice at its top level.
Json parse_json(std::string_view text, std::string_view file);

}  // namespace ds4::convert
