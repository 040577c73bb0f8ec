// The values of each type: strings, numbers, arrays, objects.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "grammar/json_schema.h"
#include "grammar/pattern.h"
#include "grammar/terminals.h"

namespace ds4::grammar {

namespace {

using Json = SchemaRules::Json;

struct Format {
  std::string_view name;
  std::string_view pattern;
};
constexpr Format kFormats[] = {
    {"date", "^\\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\\d|3[01])$"},
    {"time", "^([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)$"},
    {"date-time",
     "^\\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\\d|3[01])T([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9}"
     ")"
     "?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)$"},
    {"duration", "^P(\\d{1,9}D|\\d{1,9}W|(\\d{1,9}D)?T(\\d{1,9}H|\\d{1,9}M|\\d{1,9}S))$"},
    {"uuid", "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"},
    {"email", "^[A-Za-z0-9_+-]+(\\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9-]+(\\.[A-Za-z0-9-]+)+$"},
    {"hostname",
     "^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$"},
    {"ipv4",
     "^((25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)\\.){3}(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)$"},
    {"uri", "^[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9\\-._~:/?#\\[\\]@!$&'()*+,;=%]+$"},
};

// A whole number that counts something; nothing when the schema has none.
std::optional<std::uint32_t> count_of(const Json& schema,
                                      std::string_view keyword,
                                      const std::string& path) {
  const auto place = schema.find(std::string(keyword));
  if (place == schema.end()) return std::nullopt;
  constexpr double kMost = 1e9;
  const bool fits = place->is_number() && place->get<double>() >= 0 &&
                    place->get<double>() <= kMost &&
                    std::trunc(place->get<double>()) == place->get<double>();
  if (!fits)
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}.{}: expected a whole number of at least 0", path, keyword));
  return static_cast<std::uint32_t>(place->get<double>());
}

void check_order(std::optional<std::uint32_t> least,
                 std::optional<std::uint32_t> most,
                 const std::string& path,
                 std::string_view what) {
  if (least && most && *least > *most)
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: min{} is larger than max{}", path, what, what));
}

// A problem of the pattern or number, with its place.
template <class Make>
auto at_path(const std::string& path, const Make& make) {
  try {
    return make();
  } catch (const Error& error) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: {}", path, error.what()));
  }
}

}  // namespace

// What the schema's "pattern" or else its "format" asks of a text.
std::optional<Expression> SchemaRules::pattern_of(const Json& schema,
                                                  const std::string& path,
                                                  Spelling spelling) const {
  std::optional<Expression> pattern;
  if (const auto place = schema.find("pattern"); place != schema.end()) {
    try {
      if (!place->is_string()) throw Error(ErrorCode::kInvalidArgument, "expected text");
      pattern = parse_pattern(place->get_ref<const std::string&>(), spelling);
    } catch (const Error& error) {
      not_understood(path + ".pattern", error.what());
    }
  }
  if (const auto place = schema.find("format"); place != schema.end() && !pattern) {
    const auto* format = std::find_if(std::begin(kFormats), std::end(kFormats),
                                      [&](const Format& it) { return *place == it.name; });
    if (format == std::end(kFormats)) {
      not_understood(path + ".format",
                     fmt::format("the format {} is not supported", place->dump()));
    } else {
      pattern = parse_pattern(format->pattern, spelling);
    }
  }
  return pattern;
}

NodeId SchemaRules::string_value(const Json& schema, const std::string& path) {
  const auto least = count_of(schema, "minLength", path);
  const auto most = count_of(schema, "maxLength", path);
  check_order(least, most, path, "Length");
  const bool counts = least.value_or(0) > 0 || most;
  const Spelling spelling = spelling_ == nullptr ? Spelling::kJson : Spelling::kRaw;
  std::optional<Expression> pattern = pattern_of(schema, path, spelling);
  const NodeId open = spelling_ == nullptr ? Node::kNone : text_node(spelling_->text_open);
  const auto with_open = [&](NodeId node) {
    return open == Node::kNone ? node : grammar_.add_sequence({open, node});
  };
  if (!pattern) {
    static const DfaPtr kPlain = json_string(false);
    static const DfaPtr kCounted = json_string(true);
    const DfaPtr& dfa = spelling_ == nullptr ? (counts ? kCounted : kPlain)
                                             : (counts ? spelling_->counted_text : spelling_->text);
    return with_open(grammar_.add_terminal(dfa, least.value_or(0), most.value_or(kUnbounded)));
  }
  const std::string quote = spelling_ == nullptr ? "\"" : "";
  const std::string close = spelling_ == nullptr ? "\"" : spelling_->close;
  const auto whole = [&](Expression inside) {
    return sequence({text(quote), std::move(inside), text(close)});
  };
  return at_path(path + ".pattern", [&] {
    DfaPtr dfa = dfa_of(whole(std::move(*pattern)));
    if (counts) {
      const Expression any = one_of({{0, kCodePointMax}}, spelling);
      dfa = intersection(*dfa,
                         *dfa_of(whole(repeat(any, least.value_or(0), most.value_or(kUnbounded)))));
    }
    if (dfa->accepts_nothing()) throw Error(ErrorCode::kInvalidArgument, "no text fits");
    return with_open(grammar_.add_terminal(dfa));
  });
}

NodeId SchemaRules::number_value(const Json& schema, const std::string& path, bool whole) {
  NumberBounds bounds;
  const auto bound = [&](const char* keyword) -> std::optional<std::int64_t> {
    const auto place = schema.find(keyword);
    if (place == schema.end()) return std::nullopt;
    constexpr double kMost = 9e15;
    if (!place->is_number() || std::trunc(place->get<double>()) != place->get<double>() ||
        std::abs(place->get<double>()) > kMost) {
      not_understood(fmt::format("{}.{}", path, keyword),
                     "only whole numbers are supported as bounds");
      return std::nullopt;
    }
    return static_cast<std::int64_t>(place->get<double>());
  };
  bounds.least = bound("minimum");
  bounds.most = bound("maximum");
  if (const auto least = bound("exclusiveMinimum");
      least && (!bounds.least || *least >= *bounds.least)) {
    bounds.least = least;
    bounds.excludes_least = true;
  }
  if (const auto most = bound("exclusiveMaximum");
      most && (!bounds.most || *most <= *bounds.most)) {
    bounds.most = most;
    bounds.excludes_most = true;
  }
  if (!bounds.is_bounded()) {
    static const DfaPtr kAnyInteger = dfa_of(json_integer({}));
    static const DfaPtr kAnyNumber = dfa_of(json_number({}));
    return grammar_.add_terminal(whole ? kAnyInteger : kAnyNumber);
  }
  return at_path(path,
                 [&] { return dfa_node(whole ? json_integer(bounds) : json_number(bounds)); });
}

NodeId SchemaRules::array_value(const Json& schema, const std::string& path) {
  auto least = count_of(schema, "minItems", path);
  const auto most = count_of(schema, "maxItems", path);
  check_order(least, most, path, "Items");
  if (schema.contains("uniqueItems") && schema.at("uniqueItems") != false)
    not_understood(path, "the schema keyword \"uniqueItems\" is not supported");
  std::vector<NodeId> first;  // items with schemas of their own: all of them are there
  if (const auto place = schema.find("prefixItems"); place != schema.end()) {
    if (!place->is_array())
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{}.prefixItems: expected schemas", path));
    for (const Json& item : *place)
      first.push_back(compile(item, fmt::format("{}.prefixItems[{}]", path, first.size())));
  }
  const auto items = schema.find("items");
  const bool ends = items != schema.end() && items->is_boolean() && !items->get<bool>();
  const auto fixed = static_cast<std::uint32_t>(first.size());
  std::uint32_t rest_most = most ? *most - std::min(*most, fixed) : kUnbounded;
  if (ends) rest_most = 0;
  if ((most && *most < fixed) || (ends && least.value_or(0) > fixed))
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: the numbers of items contradict each other", path));
  std::uint32_t rest_least = std::max(least.value_or(0), fixed) - fixed;
  const NodeId open = text_node("[");
  const NodeId close = text_node("]");
  const NodeId comma = text_node(",");
  if (fixed == 0 && rest_most == 0) return grammar_.add_sequence({open, close});
  const NodeId item =
      items == schema.end() || ends ? any_value() : compile(*items, path + ".items");
  const bool may_be_empty = fixed == 0 && rest_least == 0;
  if (fixed == 0) {
    first.push_back(item);
    if (rest_most != kUnbounded) --rest_most;
    rest_least -= std::min(rest_least, 1U);
  }
  std::vector<NodeId> parts = {space_, first.front()};
  for (std::size_t i = 1; i < first.size(); ++i)
    parts.insert(parts.end(), {comma, space_, first[i]});
  parts.push_back(
      grammar_.add_repeat(grammar_.add_sequence({comma, space_, item}), rest_least, rest_most));
  parts.insert(parts.end(), {space_, close});
  NodeId inside = grammar_.add_sequence(std::move(parts));
  if (may_be_empty) inside = grammar_.add_choice({close, inside});
  return grammar_.add_sequence({open, inside});
}

NodeId SchemaRules::object_value(const Json& schema, const std::string& path) {
  const std::vector<ObjectMember> members = members_of(schema, path);
  std::optional<NodeId> extra;
  if (const Json* extras = extra_schema(schema)) {
    std::vector<std::string> names;
    names.reserve(members.size());
    for (const ObjectMember& member : members)
      names.push_back(member.name);
    extra = grammar_.add_sequence({grammar_.add_terminal(json_key_other_than(names)),
                                   text_node(":"), dfa_node(optional(text(" "))),
                                   compile(*extras, path + ".additionalProperties")});
  }
  const NodeId close = text_node("}");
  const NodeId comma = text_node(",");
  // What follows the last member, and what follows the opening when no member came.
  NodeId later = grammar_.add_sequence({space_, close});
  NodeId first = close;
  if (extra) {
    const NodeId more =
        grammar_.add_repeat(grammar_.add_sequence({comma, space_, *extra}), 0, kUnbounded);
    const NodeId end = later;
    later = grammar_.add_sequence({more, end});
    first = grammar_.add_choice({close, grammar_.add_sequence({space_, *extra, more, end})});
  }
  for (auto member = members.rbegin(); member != members.rend(); ++member) {
    const NodeId node =
        json_member(member->name, compile(*member->schema, path + ".properties." + member->name));
    const NodeId as_first = grammar_.add_sequence({space_, node, later});
    const NodeId as_later = grammar_.add_sequence({comma, space_, node, later});
    first = member->required ? as_first : grammar_.add_choice({as_first, first});
    later = member->required ? as_later : grammar_.add_choice({as_later, later});
  }
  return grammar_.add_sequence({text_node("{"), first});
}

const Json* SchemaRules::extra_schema(const Json& schema) const {
  static const Json kAny = Json::object();
  const auto extras = schema.find("additionalProperties");
  if (extras == schema.end()) {
    return schema.contains("properties") ? nullptr : &kAny;
  }
  if (extras->is_boolean()) return extras->get<bool>() ? &kAny : nullptr;
  return &*extras;
}

SchemaRules::ObjectShape SchemaRules::shape_of_object(const Json& schema, const std::string& path) {
  static const Json kAny = Json::object();
  if (policy_ == SchemaPolicy::kStrict) return strict_shape(schema, path);
  try {
    return strict_shape(schema, path);
  } catch (const std::exception&) {
    return {.members = {}, .extra = &kAny};
  }
}

SchemaRules::ObjectShape SchemaRules::strict_shape(const Json& schema, const std::string& path) {
  static const Json kAny = Json::object();
  constexpr int kReferencesMax = 16;
  const Json* at = &schema;
  for (int i = 0; at->is_object() && at->contains("$ref") && i < kReferencesMax; ++i)
    at = &resolve(at->at("$ref").is_string() ? at->at("$ref").get<std::string>() : "", path);
  if (!at->is_object())
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: expected a schema", path));
  check_keywords(*at, path);
  const std::vector<std::string> types = types_of(*at, path);
  const bool is_object = std::find(types.begin(), types.end(), "object") != types.end();
  const bool combines = at->contains("anyOf") || at->contains("oneOf") || at->contains("allOf");
  if (combines || (!is_object && !types.empty())) {
    not_understood(path, "only an object with properties is supported here");
    return {.members = {}, .extra = &kAny};
  }
  return {.members = members_of(*at, path), .extra = extra_schema(*at)};
}

std::vector<SchemaRules::ObjectMember> SchemaRules::members_of(const Json& schema,
                                                               const std::string& path) const {
  static const Json kAny = Json::object();
  std::vector<ObjectMember> members;
  if (const auto place = schema.find("properties"); place != schema.end()) {
    if (!place->is_object())
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{}.properties: expected an object", path));
    for (const auto& [name, property] : place->items())
      members.push_back({name, &property, false});
  }
  const auto required = schema.find("required");
  if (required == schema.end()) return members;
  if (!required->is_array())
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{}.required: expected names", path));
  for (const Json& name : *required) {
    if (!name.is_string())
      throw Error(ErrorCode::kInvalidArgument, fmt::format("{}.required: expected names", path));
    const auto member = std::find_if(members.begin(), members.end(),
                                     [&](const ObjectMember& it) { return name == it.name; });
    if (member != members.end()) {
      member->required = true;
      continue;
    }
    const Json* extras = extra_schema(schema);
    if (extras == nullptr && policy_ == SchemaPolicy::kStrict)
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{}.required: \"{}\" is not among the properties", path,
                              name.get<std::string>()));
    members.push_back({name.get<std::string>(), extras == nullptr ? &kAny : extras, true});
  }
  return members;
}

}  // namespace ds4::grammar
