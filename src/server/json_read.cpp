#include "server/json_read.h"

#include <cmath>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace ds4::server {

namespace {

// Builds the value while it checks what the plain parser lets pass: depth and duplicate keys.
class StrictBuilder final : public nlohmann::json_sax<Json> {
 public:
  explicit StrictBuilder(Json& root) : root_(root) {}

  bool null() override { return add(Json(nullptr)); }
  bool boolean(bool value) override { return add(Json(value)); }
  bool number_integer(number_integer_t value) override { return add(Json(value)); }
  bool number_unsigned(number_unsigned_t value) override { return add(Json(value)); }
  bool number_float(number_float_t value, const string_t& text) override {
    if (!std::isfinite(value)) return fail(fmt::format("the number {} is too large", text));
    return add(Json(value));
  }
  bool string(string_t& value) override { return add(Json(std::move(value))); }
  bool binary(binary_t&) override { return fail("binary values are no JSON"); }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second)
      return fail(fmt::format("the key \"{}\" appears twice in one object", name));
    key_ = std::move(name);
    return true;
  }
  bool parse_error(std::size_t position,
                   const std::string&,
                   const nlohmann::detail::exception& error) override {
    // The library's text ends with what it expected.
    const std::string_view what = error.what();
    const std::size_t detail = what.find("; ");
    return fail(fmt::format("the body is no JSON at byte {}{}", position,
                            detail == std::string_view::npos
                                ? std::string()
                                : fmt::format(": {}", what.substr(detail + 2))));
  }

  const std::string& problem() const { return problem_; }

 private:
  bool fail(std::string message) {
    problem_ = std::move(message);
    return false;
  }
  // The place of the next value; null when there are too many.
  Json* place(Json value) {
    if (++value_count_ > kJsonValuesMax) {
      fail(fmt::format("the body holds more than {} values", kJsonValuesMax));
      return nullptr;
    }
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    // Duplicates are refused, so that the key need not be searched.
    auto& members = parent.get_ref<Json::object_t&>();
    members.push_back(Json::object_t::value_type(key_, std::move(value)));
    return &members.back().second;
  }
  bool add(Json value) { return place(std::move(value)) != nullptr; }
  bool open(Json value) {
    if (stack_.size() >= kJsonDepthMax)
      return fail(fmt::format("the body nests deeper than {} levels", kJsonDepthMax));
    Json* const opened = place(std::move(value));
    if (opened == nullptr) return false;
    stack_.push_back(opened);
    keys_.emplace_back();
    return true;
  }
  bool close() {
    stack_.pop_back();
    keys_.pop_back();
    return true;
  }

  Json& root_;
  std::size_t value_count_ = 0;
  std::vector<Json*> stack_;
  std::vector<std::set<std::string>> keys_;
  std::string key_;
  std::string problem_;
};

std::string shortened(const Json& value) {
  std::string text = dump(value);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

}  // namespace

Json parse_body(std::string_view body) {
  Json root;
  StrictBuilder builder(root);
  if (!Json::sax_parse(body.begin(), body.end(), &builder)) {
    throw Error(ErrorCode::kInvalidArgument,
                builder.problem().empty() ? "the body is no JSON" : builder.problem());
  }
  if (!root.is_object()) throw Error(ErrorCode::kInvalidArgument, "the body must be a JSON object");
  return root;
}

void refuse_field(std::string_view field, std::string_view problem) {
  throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: {}", field, problem));
}

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Fields::Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object_.is_object())
    refuse_field(where_.empty() ? "the body" : where_, "expected an object");
}

std::string Fields::path_of(std::string_view name) const {
  return where_.empty() ? std::string(name) : fmt::format("{}.{}", where_, name);
}

const Json* Fields::find(std::string_view name) const {
  for (const auto& [key, value] : object_.get_ref<const Json::object_t&>())
    if (key == name) return value.is_null() ? nullptr : &value;
  return nullptr;
}

std::optional<std::string> Fields::text(std::string_view name) const {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) refuse_field(path_of(name), "expected a string");
  return value->get<std::string>();
}

std::optional<bool> Fields::flag(std::string_view name) const {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) refuse_field(path_of(name), "expected true or false");
  return value->get<bool>();
}

std::optional<double> Fields::number(std::string_view name, double least, double most) const {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) refuse_field(path_of(name), "expected a number");
  const double number = value->get<double>();
  if (!(number >= least && number <= most)) {
    refuse_field(path_of(name), fmt::format("{} is out of range; expected {} to {}",
                                            shortened(*value), least, most));
  }
  return number;
}

std::optional<std::int64_t> Fields::integer(std::string_view name,
                                            std::int64_t least,
                                            std::int64_t most) const {
  const std::optional<double> value =
      number(name, static_cast<double>(least), static_cast<double>(most));
  if (!value) return std::nullopt;
  if (*value != std::floor(*value)) refuse_field(path_of(name), "expected a whole number");
  return static_cast<std::int64_t>(*value);
}

const Json* Fields::object(std::string_view name) const {
  const Json* value = find(name);
  if (value != nullptr && !value->is_object()) refuse_field(path_of(name), "expected an object");
  return value;
}

const Json* Fields::list(std::string_view name) const {
  const Json* value = find(name);
  if (value != nullptr && !value->is_array()) refuse_field(path_of(name), "expected a list");
  return value;
}

const Json& Fields::required(std::string_view name) const {
  const Json* value = find(name);
  if (value == nullptr) refuse_field(path_of(name), "is missing");
  return *value;
}

void Fields::each(std::string_view name,
                  const std::function<void(const Json&, const std::string&)>& visit) const {
  const Json* items = list(name);
  if (items == nullptr) return;
  std::size_t index = 0;
  for (const Json& item : *items)
    visit(item, fmt::format("{}[{}]", path_of(name), index++));
}

void Fields::refuse_unknown(std::initializer_list<std::string_view> known) const {
  for (const auto& [key, value] : object_.get_ref<const Json::object_t&>()) {
    if (std::find(known.begin(), known.end(), key) == known.end())
      refuse_field(path_of(key), "this parameter is not supported");
  }
}

void Fields::refuse_unless(std::string_view name, std::string_view neutral) const {
  const Json* value = find(name);
  if (value == nullptr || *value == Json::parse(neutral)) return;
  refuse_field(path_of(name), fmt::format("{} is not supported; leave it out or send {}",
                                          shortened(*value), neutral));
}

}  // namespace ds4::server
