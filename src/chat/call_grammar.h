#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "chat/message.h"
#include "grammar/grammar.h"

// What an answer may look like, as grammars for a token mask: JSON, calls of the tools on offer, or
// either.  Pure functions.
namespace ds4::chat {

struct GrammarTool {
  ToolSchema schema;
  bool is_strict = false;  // whatever of its schema is not understood is refused
  std::string where;       // its parameters' path, for messages
};

struct AnswerShape {
  enum class Format { kFree, kJsonObject, kJsonSchema };
  Format format = Format::kFree;
  std::string schema;              // kJsonSchema: JSON text
  std::string schema_where;        // its path, for messages
  std::vector<GrammarTool> tools;  // that may be called
  bool must_call = false;
  bool one_call_at_most = false;
};

struct AnswerGrammars {
  // From the beginning of the answer, behind any reasoning; null: free text.
  std::shared_ptr<const grammar::Grammar> answer;
  // From behind the marker of a block's opening tag, "<｜DSML｜"; null without tools.
  std::shared_ptr<const grammar::Grammar> calls;
  // Whether what fits `calls` is always a valid block.  Not where a tool takes parameters that its
  // schema does not name: the same one might come twice.
  bool calls_are_certain = true;
};

// Throws Error(kInvalidArgument), naming the place, for a schema of the response format or of a
// strict tool that is not understood.  Cost: some milliseconds for a hundred tools; worth
// remembering.
AnswerGrammars answer_grammars(const AnswerShape& shape);

}  // namespace ds4::chat
