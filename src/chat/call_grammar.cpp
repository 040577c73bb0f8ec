#include "chat/call_grammar.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "chat/escape.h"
#include "grammar/json_schema.h"
#include "grammar/terminals.h"
#include "grammar/token_trie.h"
#include "tokenizer/markers.h"

namespace ds4::chat {
namespace {

using grammar::Grammar;
using grammar::NodeId;
using grammar::SchemaPolicy;
using grammar::SchemaRules;
using Json = SchemaRules::Json;

constexpr std::uint32_t kOtherNameBytesMax = 64;

// `before`, the marker, `after`.
std::string tag(std::string_view before, std::string_view after) {
  std::string text(before);
  text += grammar::kMarkerByte;
  text += tokenizer::kDsmlMarker;
  text += after;
  return text;
}

const grammar::ParameterSpelling& spelling() {
  static const grammar::ParameterSpelling kSpelling = [] {
    const std::string close = tag("</", "parameter>");
    return grammar::ParameterSpelling{.text_open = " string=\"true\">",
                                      .json_open = " string=\"false\">",
                                      .close = close,
                                      .text = grammar::raw_text(close, false),
                                      .counted_text = grammar::raw_text(close, true)};
  }();
  return kSpelling;
}

// The rest of a parameter's opening up to its name's end, for names other than these.
grammar::DfaPtr other_name(const std::vector<std::string>& names) {
  grammar::CodePoints forbidden = {{0, 0x1F}};
  for (const char c : std::string_view("\"&<>"))
    forbidden.emplace_back(static_cast<std::uint32_t>(c), static_cast<std::uint32_t>(c));
  const grammar::DfaPtr any = grammar::dfa_of(grammar::sequence(
      {grammar::repeat(grammar::one_of(grammar::complement(forbidden), grammar::Spelling::kRaw), 1,
                       kOtherNameBytesMax),
       grammar::text("\"")}));
  std::vector<std::string> taken;
  taken.reserve(names.size());
  for (const std::string& name : names)
    taken.push_back(escape_attribute(name) + "\"");
  return grammar::difference(*any, *grammar::dfa_of_texts(taken));
}

class CallRules {
 public:
  explicit CallRules(const AnswerShape& shape) : shape_(shape) {}

  // From behind the marker of the opening tag to the end of the block.
  NodeId block(Grammar& rules) {
    std::vector<NodeId> tools;
    for (const GrammarTool& tool : shape_.tools)
      tools.push_back(call(rules, tool));
    const NodeId call = rules.add_choice(std::move(tools));
    const NodeId more = rules.add_repeat(rules.add_sequence({rules.add_text("\n"), call}), 0,
                                         shape_.one_call_at_most ? 0 : grammar::kUnbounded);
    return rules.add_sequence(
        {rules.add_text("tool_calls>\n"), call, more, rules.add_text(tag("\n</", "tool_calls>"))});
  }
  bool is_certain() const { return is_certain_; }

 private:
  NodeId call(Grammar& rules, const GrammarTool& tool) {
    // Rules refer to the schema while they are made, not afterwards.
    const Json function = Json::parse(tool.schema.json);
    const Json& parameters = function.at("parameters");
    const SchemaPolicy policy = tool.is_strict ? SchemaPolicy::kStrict : SchemaPolicy::kLenient;
    SchemaRules schema(rules, parameters, tool.where, policy);
    const SchemaRules::ObjectShape object = schema.shape_of_object(parameters, tool.where);
    std::vector<NodeId> members;
    std::vector<std::string> names;
    std::uint32_t required = 0;
    for (const bool is_required : {true, false}) {
      for (const SchemaRules::ObjectMember& member : object.members) {
        if (member.required != is_required) continue;
        names.push_back(member.name);
        required += is_required ? 1 : 0;
        const NodeId open = rules.add_text(
            tag("<", fmt::format("parameter name=\"{}\"", escape_attribute(member.name))));
        const NodeId value =
            schema.parameter(*member.schema, tool.where + ".properties." + member.name, spelling());
        members.push_back(rules.add_sequence({open, value}));
      }
    }
    NodeId other = grammar::Node::kNone;
    if (object.extra != nullptr) {
      is_certain_ = false;
      other = rules.add_sequence(
          {rules.add_text(tag("<", "parameter name=\"")), rules.add_terminal(other_name(names)),
           schema.parameter(*object.extra, tool.where + ".additionalProperties", spelling())});
    }
    const std::string open =
        tag("<", fmt::format("invoke name=\"{}\">\n",
                             escape_attribute(function.at("name").get<std::string>())));
    // Without parameters the line between the tags is empty, or there is none.
    std::vector<NodeId> ways = {rules.add_sequence(
        {rules.add_members(std::move(members), required, other, rules.add_text("\n")),
         rules.add_text(tag("\n</", "invoke>"))})};
    if (required == 0) ways.push_back(rules.add_text(tag("</", "invoke>")));
    return rules.add_sequence({rules.add_text(open), rules.add_choice(std::move(ways))});
  }

  const AnswerShape& shape_;
  bool is_certain_ = true;
};

NodeId json_answer(Grammar& rules, const AnswerShape& shape, const Json& document) {
  if (shape.format == AnswerShape::Format::kJsonObject)
    return SchemaRules(rules, document, "", SchemaPolicy::kStrict).any_object();
  SchemaRules schema(rules, document, shape.schema_where, SchemaPolicy::kStrict);
  return schema.value(document, shape.schema_where);
}

std::shared_ptr<const Grammar> finished(Grammar rules, NodeId root, const std::string& where) {
  if (!rules.finish(root))
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: no value fits the schema", where));
  return std::make_shared<const Grammar>(std::move(rules));
}

}  // namespace

AnswerGrammars answer_grammars(const AnswerShape& shape) {
  AnswerGrammars grammars;
  const bool has_tools = !shape.tools.empty();
  const bool must_hold =
      shape.must_call || std::any_of(shape.tools.begin(), shape.tools.end(),
                                     [](const GrammarTool& tool) { return tool.is_strict; });
  if (has_tools) {
    try {
      CallRules calls(shape);
      Grammar rules;
      const NodeId root = calls.block(rules);
      grammars.calls = finished(std::move(rules), root, "tools");
      grammars.calls_are_certain = calls.is_certain();
    } catch (const Error&) {
      // Tools beyond the limits are free where nobody asked for more.
      if (must_hold) throw;
    }
  }
  const bool is_json = shape.format != AnswerShape::Format::kFree;
  if (!is_json && !shape.must_call) return grammars;
  const Json document = shape.schema.empty() ? Json(Json::object()) : Json::parse(shape.schema);
  Grammar rules;
  std::vector<NodeId> ways;
  if (is_json && !shape.must_call) ways.push_back(json_answer(rules, shape, document));
  if (grammars.calls || shape.must_call) {
    CallRules calls(shape);
    ways.push_back(rules.add_sequence({rules.add_text(tag("\n\n<", "")), calls.block(rules)}));
  }
  const NodeId root = rules.add_choice(std::move(ways));
  grammars.answer =
      finished(std::move(rules), root, shape.schema_where.empty() ? "tools" : shape.schema_where);
  return grammars;
}

}  // namespace ds4::chat
