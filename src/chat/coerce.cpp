#include "chat/coerce.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "chat/python_json.h"

namespace ds4::chat {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMembersMax = 4096;

// The types that a property's schema allows; empty when it does not say.
std::vector<std::string> allowed_types(const Json& schema) {
  std::vector<std::string> types;
  if (!schema.is_object()) return types;
  const auto add = [&](const Json& type) {
    if (type.is_string()) types.push_back(type.get<std::string>());
  };
  if (const auto type = schema.find("type"); type != schema.end()) {
    if (type->is_array()) {
      for (const Json& each : *type)
        add(each);
    } else {
      add(*type);
    }
    return types;
  }
  for (const char* key : {"anyOf", "oneOf"}) {
    const auto choices = schema.find(key);
    if (choices == schema.end() || !choices->is_array()) continue;
    for (const Json& choice : *choices) {
      if (!choice.is_object() || !choice.contains("type")) return {};
      add(choice.at("type"));
    }
  }
  return types;
}

bool is_of_type(const Json& value, const std::string& type) {
  if (type == "string") return value.is_string();
  if (type == "number") return value.is_number();
  if (type == "integer") return value.is_number_integer();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "array") return value.is_array();
  if (type == "object") return value.is_object();
  return true;  // a type that we do not know forbids nothing
}

bool is_allowed(const Json& value, const std::vector<std::string>& types) {
  if (types.empty()) return true;
  return std::any_of(types.begin(), types.end(),
                     [&](const std::string& type) { return is_of_type(value, type); });
}

bool is_placeholder(const Json& value) {
  return value.is_null() || (value.is_string() && value.get_ref<const std::string&>().empty()) ||
         (value.is_object() && value.empty());
}

std::optional<Json> parse(std::string_view text) {
  const auto checked = python_json(text);  // bounds the nesting
  if (!checked) return std::nullopt;
  return Json::parse(*checked, nullptr, false);
}

// The one other reading of `value` that `types` allow.
std::optional<Json> converted(const Json& value, const std::vector<std::string>& types) {
  const auto allows = [&](const char* type) {
    return std::find(types.begin(), types.end(), type) != types.end();
  };
  if (value.is_number_float() && allows("integer")) {
    const double number = value.get<double>();
    constexpr double kExactMax = 9007199254740992.0;  // 2^53: above it a double skips integers
    if (std::trunc(number) == number && std::abs(number) <= kExactMax) {
      return Json(static_cast<std::int64_t>(number));
    }
  }
  if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    if (allows("boolean") && (text == "True" || text == "False")) return Json(text == "True");
    auto parsed = parse(text);
    if (parsed && is_allowed(*parsed, types)) return parsed;
    if (parsed && parsed->is_number_float()) return converted(*parsed, types);
    return std::nullopt;
  }
  if ((value.is_number() || value.is_boolean()) && types.size() == 1 && allows("string")) {
    return Json(value.dump());
  }
  return std::nullopt;
}

class Coercion {
 public:
  Coercion(std::vector<JsonMember> members, const Json& schema)
      : members_(std::move(members)),
        schema_(schema) {}

  CoercedArguments run() {
    for (JsonMember& member : members_)
      check(member);
    check_required();
    std::string out = "{";
    for (const JsonMember& member : kept_) {
      if (out.size() > 1) out += ", ";
      out += json_quote(member.key) + ": ";
      out += member.is_string ? json_quote(member.value) : member.value;
    }
    result_.arguments = out + "}";
    return std::move(result_);
  }

 private:
  bool is_required(const std::string& name) const {
    const auto list = schema_.find("required");
    if (list == schema_.end() || !list->is_array()) return false;
    return std::find(list->begin(), list->end(), Json(name)) != list->end();
  }

  void check(JsonMember& member) {
    const auto properties = schema_.find("properties");
    if (properties == schema_.end() || !properties->is_object() ||
        !properties->contains(member.key)) {
      kept_.push_back(std::move(member));
      return;
    }
    const std::vector<std::string> types = allowed_types(properties->at(member.key));
    const Json value =
        member.is_string ? Json(member.value) : Json::parse(member.value, nullptr, false);
    if (is_allowed(value, types)) {
      kept_.push_back(std::move(member));
      return;
    }
    if (const auto better = converted(value, types)) {
      result_.changed.push_back(member.key);
      keep(member.key, *better);
    } else if (is_placeholder(value) && !is_required(member.key)) {
      result_.changed.push_back(member.key);
    } else {
      result_.problems.push_back(fmt::format("parameter '{}' must be of type {}, but is {}",
                                             member.key, fmt::join(types, " or "),
                                             value.type_name()));
      kept_.push_back(std::move(member));
    }
  }

  void keep(const std::string& key, const Json& value) {
    if (value.is_string()) {
      kept_.push_back({key, true, value.get<std::string>()});
    } else {
      kept_.push_back({key, false, python_json(value.dump()).value_or("null")});
    }
  }

  void check_required() {
    const auto list = schema_.find("required");
    if (list == schema_.end() || !list->is_array()) return;
    for (const Json& name : *list) {
      if (!name.is_string()) continue;
      const bool is_there = std::any_of(kept_.begin(), kept_.end(), [&](const JsonMember& member) {
        return member.key == name.get_ref<const std::string&>();
      });
      if (!is_there) {
        result_.problems.push_back(
            fmt::format("the required parameter '{}' is missing", name.get<std::string>()));
      }
    }
  }

  std::vector<JsonMember> members_;
  std::vector<JsonMember> kept_;
  const Json& schema_;
  CoercedArguments result_;
};

}  // namespace

CoercedArguments coerce_arguments(std::string_view arguments, std::string_view schema) {
  auto members = split_object(arguments);
  if (!members || members->size() > kMembersMax) {
    return {std::string(arguments), {}, {"the arguments are not one JSON object of usable size"}};
  }
  Json root = parse(schema).value_or(Json::object());
  if (root.is_object() && root.contains("parameters")) root = Json(root.at("parameters"));
  if (!root.is_object()) root = Json::object();
  return Coercion(std::move(*members), root).run();
}

}  // namespace ds4::chat
