#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "grammar/grammar.h"

// From JSON Schema to grammar rules (docs/protocols/structured-output.md lists what is understood).
// A value's properties come in the order in which the schema names them.
namespace ds4::grammar {

enum class SchemaPolicy {
  kStrict,   // what is not understood is refused
  kLenient,  // what is not understood, or contradicts itself, constrains nothing
};

// How values of tool parameters are spelled: a string as it is, anything else as JSON, each between
// an opening that says which and a close.
struct ParameterSpelling {
  std::string text_open;
  std::string json_open;
  std::string close;
  DfaPtr text;          // any text up to and including `close`
  DfaPtr counted_text;  // the same, counting
};

// Adds rules for values of one schema document to a grammar.  When strict, throws
// Error(kInvalidArgument), with the path below `where`, for what contradicts itself or is not
// understood.
class SchemaRules {
 public:
  using Json = nlohmann::ordered_json;

  // `document` is what "#" stands for in $ref; it must outlive this.
  SchemaRules(Grammar& grammar, const Json& document, std::string where, SchemaPolicy policy);

  // A JSON value.
  NodeId value(const Json& schema, const std::string& path);
  // A parameter's value with its opening and close.
  NodeId parameter(const Json& schema, const std::string& path, const ParameterSpelling& spelling);
  // The properties of an object's schema in their order; those that are required and not declared
  // stand at the end.
  struct ObjectMember {
    std::string name;
    const Json* schema;
    bool required;
  };
  struct ObjectShape {
    std::vector<ObjectMember> members;
    const Json* extra;  // the schema of properties that are not declared; null: there are none
  };
  // Of a schema that must be an object's, references followed.
  ObjectShape shape_of_object(const Json& schema, const std::string& path);
  // Any JSON value; any JSON object.
  NodeId any_value();
  NodeId any_object();

 private:
  ObjectShape strict_shape(const Json& schema, const std::string& path);
  std::vector<ObjectMember> members_of(const Json& schema, const std::string& path) const;
  const Json* extra_schema(const Json& schema) const;
  NodeId compile(const Json& schema, const std::string& path);
  NodeId compile_strictly(const Json& schema, const std::string& path);
  NodeId compile_typed(const Json& schema, const std::string& path);
  NodeId compile_type(const std::string& type, const Json& schema, const std::string& path);
  NodeId reference(const Json& schema, const std::string& path);
  NodeId literals(const std::vector<Json>& values, const Json& schema, const std::string& path);
  NodeId alternatives(const Json& schema, std::string_view keyword, const std::string& path);
  std::optional<Expression> pattern_of(const Json& schema,
                                       const std::string& path,
                                       Spelling spelling) const;
  NodeId string_value(const Json& schema, const std::string& path);
  NodeId number_value(const Json& schema, const std::string& path, bool whole);
  NodeId array_value(const Json& schema, const std::string& path);
  NodeId object_value(const Json& schema, const std::string& path);
  NodeId json_member(std::string_view name, NodeId value);
  NodeId as_json(NodeId node);
  NodeId text_node(const std::string& text);
  NodeId dfa_node(const Expression& expression);
  void check_keywords(const Json& schema, const std::string& path);
  const Json& resolve(const std::string& pointer, const std::string& path) const;
  bool are_disjoint(const Json& a, const Json& b, const std::string& path, int depth) const;
  std::vector<std::string> types_of(const Json& schema, const std::string& path) const;
  void not_understood(const std::string& path, std::string_view what) const;

  Grammar& grammar_;
  const Json& document_;
  const std::string where_;
  const SchemaPolicy policy_;
  const ParameterSpelling* spelling_ = nullptr;  // of the value being compiled; null: JSON
  std::map<std::pair<std::string, bool>, NodeId> references_;  // by pointer and spelling
  std::map<std::string, NodeId> texts_;
  NodeId any_value_ = Node::kNone;
  NodeId any_object_ = Node::kNone;
  NodeId space_ = Node::kNone;
};

// Grammars of whole answers.  The first throws as SchemaRules does; `where` names the schema in
// messages.
std::shared_ptr<const Grammar> json_schema_grammar(std::string_view schema,
                                                   const std::string& where);
std::shared_ptr<const Grammar> json_object_grammar();

}  // namespace ds4::grammar
