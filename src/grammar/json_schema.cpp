#include "grammar/json_schema.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "grammar/terminals.h"

namespace ds4::grammar {

namespace {

using Json = SchemaRules::Json;

// Keywords that say nothing of which values are valid.
constexpr std::string_view kAnnotations[] = {"title",
                                             "description",
                                             "default",
                                             "examples",
                                             "example",
                                             "$schema",
                                             "$id",
                                             "id",
                                             "$comment",
                                             "deprecated",
                                             "readOnly",
                                             "writeOnly",
                                             "$defs",
                                             "definitions",
                                             "$anchor",
                                             "nullable",
                                             "strict",
                                             "contentMediaType",
                                             "contentEncoding",
                                             "discriminator"};

struct TypedKeyword {
  std::string_view keyword;
  std::string_view type;  // of the values that it constrains
};
constexpr TypedKeyword kTypedKeywords[] = {
    {"properties", "object"},
    {"required", "object"},
    {"additionalProperties", "object"},
    {"items", "array"},
    {"prefixItems", "array"},
    {"minItems", "array"},
    {"maxItems", "array"},
    {"uniqueItems", "array"},
    {"minLength", "string"},
    {"maxLength", "string"},
    {"pattern", "string"},
    {"format", "string"},
    {"minimum", "number"},
    {"maximum", "number"},
    {"exclusiveMinimum", "number"},
    {"exclusiveMaximum", "number"},
};

constexpr std::string_view kTypes[] = {"object",  "array",   "string", "number",
                                       "integer", "boolean", "null"};

std::string compact(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string quoted(std::string_view text) {
  return compact(Json(std::string(text)));
}

bool is_annotation(std::string_view keyword) {
  return keyword.starts_with("x-") || std::find(std::begin(kAnnotations), std::end(kAnnotations),
                                                keyword) != std::end(kAnnotations);
}

const TypedKeyword* find_typed(std::string_view keyword) {
  const auto* place = std::find_if(std::begin(kTypedKeywords), std::end(kTypedKeywords),
                                   [&](const TypedKeyword& it) { return it.keyword == keyword; });
  return place == std::end(kTypedKeywords) ? nullptr : place;
}

bool is_of_type(const Json& value, std::string_view type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "number") return value.is_number();
  if (type == "integer") return value.is_number_integer();
  if (type == "boolean") return value.is_boolean();
  return value.is_null();
}

bool types_meet(std::string_view a, std::string_view b) {
  const auto is_number = [](std::string_view type) {
    return type == "number" || type == "integer";
  };
  return a == b || (is_number(a) && is_number(b));
}

// No types are any type.
bool any_types_meet(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  if (a.empty() || b.empty()) return true;
  return std::any_of(a.begin(), a.end(), [&](const std::string& one) {
    return std::any_of(b.begin(), b.end(),
                       [&](const std::string& two) { return types_meet(one, two); });
  });
}

// The values that a schema lists; null when it lists none.
Json constants_of(const Json& schema) {
  if (schema.contains("const")) return Json::array({schema.at("const")});
  return schema.contains("enum") && schema.at("enum").is_array() ? schema.at("enum")
                                                                 : Json(nullptr);
}

bool requires_member(const Json& schema, const std::string& name) {
  if (!schema.contains("required") || !schema.at("required").is_array()) return false;
  const Json& names = schema.at("required");
  return std::find(names.begin(), names.end(), Json(name)) != names.end();
}

}  // namespace

SchemaRules::SchemaRules(Grammar& grammar,
                         const Json& document,
                         std::string where,
                         SchemaPolicy policy)
    : grammar_(grammar),
      document_(document),
      where_(std::move(where)),
      policy_(policy) {
  space_ = dfa_node(json_space());
}

void SchemaRules::not_understood(const std::string& path, std::string_view what) const {
  if (policy_ == SchemaPolicy::kLenient) return;
  throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: {}", path, what));
}

NodeId SchemaRules::text_node(const std::string& text) {
  const auto place = texts_.find(text);
  if (place != texts_.end()) return place->second;
  return texts_[text] = grammar_.add_text(text);
}

NodeId SchemaRules::dfa_node(const Expression& expression) {
  return grammar_.add_terminal(dfa_of(expression));
}

NodeId SchemaRules::as_json(NodeId node) {
  if (spelling_ == nullptr) return node;
  return grammar_.add_sequence(
      {text_node(spelling_->json_open), node, text_node(spelling_->close)});
}

NodeId SchemaRules::value(const Json& schema, const std::string& path) {
  const ParameterSpelling* outer = std::exchange(spelling_, nullptr);
  const NodeId node = compile(schema, path);
  spelling_ = outer;
  return node;
}

NodeId SchemaRules::parameter(const Json& schema,
                              const std::string& path,
                              const ParameterSpelling& spelling) {
  spelling_ = &spelling;
  const NodeId node = compile(schema, path);
  spelling_ = nullptr;
  return node;
}

// --- values without a schema ---

NodeId SchemaRules::any_value() {
  if (any_value_ != Node::kNone) return any_value_;
  // Every grammar shares these terminals, and with them what is remembered of them.
  static const DfaPtr kString = json_string(false);
  static const DfaPtr kNumber = dfa_of(json_number({}));
  any_value_ = grammar_.add_open();
  const NodeId comma = text_node(",");
  const NodeId items =
      grammar_.add_repeat(grammar_.add_sequence({comma, space_, any_value_}), 0, kUnbounded);
  const NodeId array = grammar_.add_sequence(
      {text_node("["),
       grammar_.add_choice({text_node("]"), grammar_.add_sequence({space_, any_value_, items,
                                                                   space_, text_node("]")})})});
  grammar_.set_nests(array);
  grammar_.define(any_value_, grammar_.add_choice({grammar_.add_terminal(kString),
                                                   grammar_.add_terminal(kNumber),
                                                   text_node("true"), text_node("false"),
                                                   text_node("null"), array, any_object()}));
  return any_value_;
}

NodeId SchemaRules::any_object() {
  if (any_object_ != Node::kNone) return any_object_;
  static const DfaPtr kString = json_string(false);
  any_object_ = grammar_.add_open();
  grammar_.set_nests(any_object_);
  const NodeId member = grammar_.add_sequence(
      {grammar_.add_terminal(kString), text_node(":"), dfa_node(optional(text(" "))), any_value()});
  const NodeId more =
      grammar_.add_repeat(grammar_.add_sequence({text_node(","), space_, member}), 0, kUnbounded);
  grammar_.define(
      any_object_,
      grammar_.add_sequence(
          {text_node("{"),
           grammar_.add_choice({text_node("}"), grammar_.add_sequence({space_, member, more, space_,
                                                                       text_node("}")})})}));
  return any_object_;
}

// --- schemas ---

void SchemaRules::check_keywords(const Json& schema, const std::string& path) {
  constexpr std::string_view kOthers[] = {"type",  "enum",  "const", "anyOf",
                                          "oneOf", "allOf", "$ref"};
  for (const auto& [keyword, ignored] : schema.items()) {
    const bool known =
        is_annotation(keyword) || find_typed(keyword) != nullptr ||
        std::find(std::begin(kOthers), std::end(kOthers), keyword) != std::end(kOthers);
    if (!known)
      not_understood(path, fmt::format("the schema keyword \"{}\" is not supported", keyword));
  }
  // A combining keyword decides alone.
  for (const std::string_view combining : {"$ref", "anyOf", "oneOf", "allOf"}) {
    if (!schema.contains(combining)) continue;
    for (const auto& [keyword, ignored] : schema.items()) {
      if (keyword == combining || is_annotation(keyword)) continue;
      not_understood(path, fmt::format("the schema keyword \"{}\" beside \"{}\" is not supported",
                                       keyword, combining));
    }
  }
}

NodeId SchemaRules::compile(const Json& schema, const std::string& path) {
  if (policy_ == SchemaPolicy::kStrict) return compile_strictly(schema, path);
  const ParameterSpelling* spelling = spelling_;
  try {
    return compile_strictly(schema, path);
  } catch (const std::exception&) {
    spelling_ = spelling;
    return compile_typed(Json::object(), path);
  }
}

NodeId SchemaRules::compile_strictly(const Json& schema, const std::string& path) {
  if (schema.is_boolean() && schema.get<bool>()) return compile_typed(Json::object(), path);
  if (!schema.is_object()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: expected a schema as an object", path));
  }
  check_keywords(schema, path);
  NodeId node = Node::kNone;
  if (schema.contains("$ref")) {
    node = reference(schema, path);
  } else if (schema.contains("anyOf")) {
    node = alternatives(schema, "anyOf", path);
  } else if (schema.contains("oneOf")) {
    node = alternatives(schema, "oneOf", path);
  } else if (schema.contains("allOf")) {
    node = alternatives(schema, "allOf", path);
  } else if (schema.contains("const")) {
    node = literals({schema.at("const")}, schema, path);
  } else if (schema.contains("enum")) {
    if (!schema.at("enum").is_array() || schema.at("enum").empty())
      throw Error(ErrorCode::kInvalidArgument, fmt::format("{}.enum: expected values", path));
    const Json& values = schema.at("enum");
    node = literals({values.begin(), values.end()}, schema, path);
  } else {
    node = compile_typed(schema, path);
  }
  const bool nullable = schema.contains("nullable") && schema.at("nullable") == true;
  return nullable ? grammar_.add_choice({node, as_json(text_node("null"))}) : node;
}

std::vector<std::string> SchemaRules::types_of(const Json& schema, const std::string& path) const {
  std::vector<std::string> types;
  const auto add = [&](const Json& type) {
    const std::string name = type.is_string() ? type.get<std::string>() : std::string();
    if (std::find(std::begin(kTypes), std::end(kTypes), name) == std::end(kTypes)) {
      not_understood(path + ".type", fmt::format("{} is no type", compact(type)));
      return;
    }
    types.push_back(name);
  };
  if (schema.contains("type")) {
    const Json& type = schema.at("type");
    if (type.is_array()) {
      for (const Json& each : type)
        add(each);
    } else {
      add(type);
    }
    return types;
  }
  // Without a type the keywords tell what is meant.
  for (const auto& [keyword, ignored] : schema.items()) {
    const TypedKeyword* typed = find_typed(keyword);
    if (typed != nullptr && std::find(types.begin(), types.end(), typed->type) == types.end())
      types.emplace_back(typed->type);
  }
  return types;
}

NodeId SchemaRules::compile_typed(const Json& schema, const std::string& path) {
  std::vector<NodeId> parts;
  const std::vector<std::string> types = types_of(schema, path);
  parts.reserve(types.size());
  for (const std::string& type : types)
    parts.push_back(compile_type(type, schema, path));
  if (!parts.empty()) return grammar_.add_choice(std::move(parts));
  if (spelling_ == nullptr) return any_value();
  return grammar_.add_choice({compile_type("string", Json::object(), path), as_json(any_value())});
}

NodeId SchemaRules::compile_type(const std::string& type,
                                 const Json& schema,
                                 const std::string& path) {
  if (type == "string") return string_value(schema, path);
  if (type == "boolean")
    return as_json(grammar_.add_choice({text_node("true"), text_node("false")}));
  if (type == "null") return as_json(text_node("null"));
  if (type == "number" || type == "integer")
    return as_json(number_value(schema, path, type == "integer"));
  // Whatever is inside is JSON.
  const ParameterSpelling* outer = std::exchange(spelling_, nullptr);
  const NodeId node = type == "array" ? array_value(schema, path) : object_value(schema, path);
  spelling_ = outer;
  return as_json(node);
}

const Json& SchemaRules::resolve(const std::string& pointer, const std::string& path) const {
  if (pointer == "#") return document_;
  if (!pointer.starts_with("#/"))
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}.$ref: only references inside the schema are supported", path));
  try {
    return document_.at(Json::json_pointer(pointer.substr(1)));
  } catch (const Json::exception&) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}.$ref: there is no \"{}\"", path, pointer));
  }
}

NodeId SchemaRules::reference(const Json& schema, const std::string& path) {
  const Json& target = schema.at("$ref");
  if (!target.is_string())
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{}.$ref: expected text", path));
  const auto pointer = target.get<std::string>();
  const Json& meaning = resolve(pointer, path);
  const auto [place, added] = references_.try_emplace({pointer, spelling_ != nullptr}, Node::kNone);
  if (!added) return place->second;
  const NodeId open = grammar_.add_open();
  grammar_.set_nests(open);
  place->second = open;
  grammar_.define(open, compile(meaning, where_ + pointer.substr(1)));
  return open;
}

NodeId SchemaRules::literals(const std::vector<Json>& values,
                             const Json& schema,
                             const std::string& path) {
  const std::vector<std::string> types =
      schema.contains("type") ? types_of(schema, path) : std::vector<std::string>{};
  std::vector<std::string> raw;
  std::vector<std::string> json;
  for (const Json& value : values) {
    const bool fits =
        types.empty() || std::any_of(types.begin(), types.end(),
                                     [&](const auto& type) { return is_of_type(value, type); });
    if (!fits) continue;
    if (spelling_ != nullptr && value.is_string()) {
      raw.push_back(value.get<std::string>() + spelling_->close);
    } else {
      json.push_back(compact(value));
    }
  }
  std::vector<NodeId> parts;
  if (!raw.empty())
    parts.push_back(grammar_.add_sequence(
        {text_node(spelling_->text_open), grammar_.add_terminal(dfa_of_texts(raw))}));
  if (!json.empty()) parts.push_back(as_json(grammar_.add_terminal(dfa_of_texts(json))));
  if (parts.empty())
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: no value of the enumeration has the type", path));
  return grammar_.add_choice(std::move(parts));
}

NodeId SchemaRules::alternatives(const Json& schema,
                                 std::string_view keyword,
                                 const std::string& path) {
  const Json& list = schema.at(std::string(keyword));
  const std::string place = fmt::format("{}.{}", path, keyword);
  if (!list.is_array() || list.empty())
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: expected schemas", place));
  if (keyword == "allOf" && list.size() > 1) {
    not_understood(place, "more than one schema in \"allOf\" is not supported");
    return compile_typed(Json::object(), path);
  }
  if (keyword == "oneOf" && policy_ == SchemaPolicy::kStrict) {
    for (std::size_t i = 0; i < list.size(); ++i) {
      for (std::size_t j = i + 1; j < list.size(); ++j) {
        if (are_disjoint(list[i], list[j], place, 0)) continue;
        not_understood(place, fmt::format("schemas {} and {} of \"oneOf\" may both match, which is "
                                          "not supported: use \"anyOf\", or give them a constant "
                                          "that tells them apart",
                                          i, j));
      }
    }
  }
  std::vector<NodeId> parts;
  std::size_t index = 0;
  for (const Json& each : list)
    parts.push_back(compile(each, fmt::format("{}[{}]", place, index++)));
  return grammar_.add_choice(std::move(parts));
}

// Whether no value fits both; false when that is not plain to see.
bool SchemaRules::are_disjoint(const Json& a,
                               const Json& b,
                               const std::string& path,
                               int depth) const {
  constexpr int kDepthMax = 16;
  if (!a.is_object() || !b.is_object() || depth > kDepthMax) return false;
  for (const auto& [from, other] : {std::pair{&a, &b}, std::pair{&b, &a}}) {
    if (from->contains("$ref") && from->at("$ref").is_string())
      return are_disjoint(resolve(from->at("$ref").get<std::string>(), path), *other, path,
                          depth + 1);
  }
  const Json of_a = constants_of(a);
  const Json of_b = constants_of(b);
  if (of_a.is_array() && of_b.is_array()) {
    return std::none_of(of_a.begin(), of_a.end(), [&](const Json& value) {
      return std::find(of_b.begin(), of_b.end(), value) != of_b.end();
    });
  }
  const std::vector<std::string> types_a = types_of(a, path);
  const std::vector<std::string> types_b = types_of(b, path);
  if (!any_types_meet(types_a, types_b)) return true;
  if (types_a != std::vector<std::string>{"object"} || types_b != types_a) return false;
  if (!a.contains("properties") || !b.contains("properties")) return false;
  for (const auto& [name, schema] : a.at("properties").items()) {
    if (requires_member(a, name) && requires_member(b, name) && b.at("properties").contains(name) &&
        are_disjoint(schema, b.at("properties").at(name), path, depth + 1))
      return true;
  }
  return false;
}

NodeId SchemaRules::json_member(std::string_view name, NodeId value) {
  static const DfaPtr kColonSpace = dfa_of(optional(text(" ")));
  return grammar_.add_sequence(
      {text_node(quoted(name) + ":"), grammar_.add_terminal(kColonSpace), value});
}

// --- whole answers ---

std::shared_ptr<const Grammar> json_schema_grammar(std::string_view schema,
                                                   const std::string& where) {
  const Json document = Json::parse(schema);
  auto grammar = std::make_shared<Grammar>();
  SchemaRules rules(*grammar, document, where, SchemaPolicy::kStrict);
  if (!grammar->finish(rules.value(document, where)))
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: no value fits the schema", where));
  return grammar;
}

std::shared_ptr<const Grammar> json_object_grammar() {
  const Json document = Json::object();
  auto grammar = std::make_shared<Grammar>();
  SchemaRules rules(*grammar, document, "", SchemaPolicy::kStrict);
  grammar->finish(rules.any_object());
  return grammar;
}

}  // namespace ds4::grammar
