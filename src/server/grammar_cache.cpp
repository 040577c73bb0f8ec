#include "server/grammar_cache.h"

#include <algorithm>
#include <utility>

namespace ds4::server {

namespace {

constexpr std::size_t kEntriesMax = 64;

chat::AnswerShape shape_of(const Ask& ask) {
  chat::AnswerShape shape;
  switch (ask.format.kind) {
    case FormatKind::kText:
      break;
    case FormatKind::kJsonObject:
      shape.format = chat::AnswerShape::Format::kJsonObject;
      break;
    case FormatKind::kJsonSchema:
      shape.format = chat::AnswerShape::Format::kJsonSchema;
      break;
  }
  shape.schema = ask.format.schema;
  shape.schema_where = ask.format.where;
  for (const OfferedTool& tool : ask.tools) {
    if (!tool.may_be_called) continue;
    shape.tools.push_back(
        {.schema = tool.schema, .is_strict = tool.is_strict, .where = tool.where});
  }
  shape.must_call = ask.tool_choice == ToolChoice::kRequired;
  shape.one_call_at_most = ask.one_call_at_most;
  return shape;
}

// Everything that decides the grammars, each part with its length.
std::string key_of(const chat::AnswerShape& shape) {
  std::string key;
  const auto add = [&](const std::string& part) {
    key += std::to_string(part.size()) + ":" + part;
  };
  add(std::to_string(static_cast<int>(shape.format)) + (shape.must_call ? "r" : "-") +
      (shape.one_call_at_most ? "1" : "n"));
  add(shape.schema);
  add(shape.schema_where);
  for (const chat::GrammarTool& tool : shape.tools) {
    add(tool.schema.json);
    add(tool.is_strict ? tool.where : "");
  }
  return key;
}

}  // namespace

chat::AnswerGrammars GrammarCache::of(const Ask& ask) {
  const chat::AnswerShape shape = shape_of(ask);
  if (shape.tools.empty() && shape.format == chat::AnswerShape::Format::kFree) return {};
  std::string key = key_of(shape);
  {
    const std::lock_guard lock(mutex_);
    const auto place = std::find_if(entries_.begin(), entries_.end(),
                                    [&](const Entry& entry) { return entry.key == key; });
    if (place != entries_.end()) {
      entries_.splice(entries_.begin(), entries_, place);
      return place->grammars;
    }
  }
  chat::AnswerGrammars grammars = chat::answer_grammars(shape);
  for (const auto& grammar : {grammars.answer, grammars.calls})
    if (grammar) trie_->prepare(*grammar);
  const std::lock_guard lock(mutex_);
  entries_.push_front({std::move(key), grammars});
  if (entries_.size() > kEntriesMax) entries_.pop_back();
  return grammars;
}

}  // namespace ds4::server
