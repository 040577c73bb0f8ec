#include "convert/json.h"

#include <set>
#include <string>

#include <fmt/format.h>

#include "base/error.h"

namespace ds4::convert {

namespace {

constexpr int kNestingMax = 32;

}  // namespace

Json parse_json(std::string_view text, std::string_view file) {
  const auto fail = [&](std::string_view problem) {
    throw Error(ErrorCode::kBadFormat,
                fmt::format("{}: not the JSON that was expected: {}", file, problem));
  };
  std::set<std::string> keys;
  std::string duplicate;
  const auto watch = [&](int depth, Json::parse_event_t event, const Json& parsed) {
    if (depth > kNestingMax) fail("it nests too deeply");
    if (event == Json::parse_event_t::key && depth == 1 &&
        !keys.insert(parsed.get<std::string>()).second)
      duplicate = parsed.get<std::string>();
    return true;
  };
  Json value;
  try {
    value = Json::parse(text, watch);
  } catch (const Json::exception& error) {
    fail(error.what());
  }
  if (!value.is_object()) fail("it is not an object");
  if (!duplicate.empty()) fail(fmt::format("key '{}' appears twice", duplicate));
  return value;
}

}  // namespace ds4::convert
