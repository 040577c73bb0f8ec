#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ds4::chat {

// JSON text as Python's json.dumps(ensure_ascii=False) writes it, which is what the model was
// trained on: ", " and ": ", key order kept, floats in their shortest form.  Deeper nesting than
// this is refused.
inline constexpr std::size_t kJsonDepthMax = 128;

// Nothing when `json` is not one valid JSON value.  Linear in the text.
std::optional<std::string> python_json(std::string_view json);

// A member of a JSON object.
struct JsonMember {
  std::string key;
  bool is_string;
  std::string value;  // a string's content, or the value as python_json() writes it
};
// The members in order; of repeated keys the last value, at the first one's place.  Nothing when
// `json` is not one valid JSON object.
std::optional<std::vector<JsonMember>> split_object(std::string_view json);

// `text` as a JSON string, quoted.
std::string json_quote(std::string_view text);
// Appends what stands for `text` between the quotes.  `text` must be UTF-8.
void append_json_escaped(std::string& out, std::string_view text);

}  // namespace ds4::chat
