#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace ds4::chat {

// The escapes of the DSML text form; see docs/protocols/dsml.md.

// Attribute values: & < > " as entities.
std::string escape_attribute(std::string_view value);
// The reverse, for &amp; &lt; &gt; &quot; &apos; in one pass; other entities stay.
std::string unescape_attribute(std::string_view value);

// String payload: the '<' of an embedded DSML tag as "&lt;", nothing else.
std::string escape_payload(std::string_view value);
// The reverse over a whole value.
std::string unescape_payload(std::string_view value);

// JSON text: the '<' of an embedded DSML tag as "\u003c".
std::string escape_json_payload(std::string_view json);

// Tool results: the '<' of an embedded "</tool_result>" as "&lt;", nothing else.
std::string escape_tool_result(std::string_view content);

}  // namespace ds4::chat
