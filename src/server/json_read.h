#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

// Bodies of requests as JSON, read strictly, and their fields.  Everything here throws
// Error(kInvalidArgument) whose message names the field, for the client to read.  Pure functions.
namespace ds4::server {

using Json = nlohmann::ordered_json;

inline constexpr std::size_t kJsonDepthMax = 128;
// A value takes many times the bytes that stand for it: 64 MiB of "[],[]," would become 1.5 GB.
inline constexpr std::size_t kJsonValuesMax = 1'000'000;

// One JSON object.  Refused: duplicate keys, nesting beyond kJsonDepthMax, more than kJsonValuesMax
// values, numbers beyond f64, text that is not UTF-8, anything behind the end.
Json parse_body(std::string_view body);

// The fields of one object.  Absent and null are the same.  `where` names the object in messages,
// e.g. "messages[3]"; empty for the body itself.
class Fields {
 public:
  Fields(const Json& object, std::string where);

  bool has(std::string_view name) const { return find(name) != nullptr; }
  const Json* find(std::string_view name) const;

  std::optional<std::string> text(std::string_view name) const;
  std::optional<bool> flag(std::string_view name) const;
  std::optional<double> number(std::string_view name, double least, double most) const;
  std::optional<std::int64_t> integer(std::string_view name,
                                      std::int64_t least,
                                      std::int64_t most) const;
  // The object or list of that name, or null.
  const Json* object(std::string_view name) const;
  const Json* list(std::string_view name) const;
  // The value of that name; throws when there is none.
  const Json& required(std::string_view name) const;
  // Calls visit(item, "tools[2]") for every item of the list of that name; of none when it is
  // absent.
  void each(std::string_view name,
            const std::function<void(const Json& item, const std::string& where)>& visit) const;

  // Throws when the object has a field that is not among `known`.
  void refuse_unknown(std::initializer_list<std::string_view> known) const;
  // Throws unless the field is absent or equals the JSON text `neutral`, the value that changes
  // nothing.
  void refuse_unless(std::string_view name, std::string_view neutral) const;

  // "messages[3].role"
  std::string path_of(std::string_view name) const;

 private:
  const Json& object_;
  std::string where_;
};

[[noreturn]] void refuse_field(std::string_view field, std::string_view problem);

// Text of an answer as JSON text; bytes that are no UTF-8 become U+FFFD.
std::string dump(const Json& value);

}  // namespace ds4::server
