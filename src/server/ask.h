#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "chat/effort.h"
#include "chat/message.h"
#include "sample/sampler.h"

// A request for an answer in no protocol's words: what every protocol's reader makes of a body and
// everything behind it works on.
namespace ds4::server {

enum class Protocol { kChat, kCompletions, kMessages, kResponses };
const char* protocol_name(Protocol protocol);

// A function of the client, by the name that the model sees.
struct OfferedTool {
  std::string name;
  chat::ToolSchema schema;
  // The Responses protocol's namespaces: the wire name and its namespace, given back in calls.
  std::string wire_name;
  std::string wire_namespace;
  bool is_custom = false;     // takes text, not JSON: shown as one string parameter `input`
  bool is_search = false;     // the Responses protocol's search for further tools
  bool is_strict = false;     // its schema is understood whole or refused
  bool may_be_called = true;  // false: shown to the model, but the tool choice leaves it out
  std::string where = {};     // its parameters' path in the body, for messages
};

enum class ToolChoice { kAuto, kNone, kRequired };

enum class FormatKind { kText, kJsonObject, kJsonSchema };
struct OutputFormat {
  FormatKind kind = FormatKind::kText;
  std::string schema;  // kJsonSchema: JSON text
  std::string where;   // its path in the body, for messages
};

struct Ask {
  Protocol protocol = Protocol::kChat;
  std::string model;  // as the client named it; echoed
  std::vector<chat::Message> messages;
  std::vector<OfferedTool> tools;  // empty with ToolChoice::kNone
  ToolChoice tool_choice = ToolChoice::kAuto;
  bool one_call_at_most = false;
  OutputFormat format;

  chat::ThinkMode think = chat::ThinkMode::kHigh;
  std::optional<std::uint32_t> think_tokens_max;  // a budget
  sample::SamplingOptions sampling;
  std::optional<std::uint64_t> seed;
  std::optional<std::uint32_t> tokens_max;
  std::vector<std::string> stops;
  std::optional<std::uint32_t> top_logprobs;  // report log probabilities, and of that many others
  int priority = 0;

  bool streams = false;
  bool include_usage = false;   // chat, completions: a last chunk with the usage
  bool shows_reasoning = true;  // responses: summaries were asked for
};

struct AskDefaults {
  std::string model;  // this server's name for its model
  chat::ThinkMode think = chat::ThinkMode::kHigh;
  sample::SamplingOptions sampling;
};

// Bodies as JSON text to Ask.  Throw Error(kInvalidArgument) that names the field for whatever is
// malformed, unsupported or unknown: nothing is ignored that would change the answer
// (docs/protocols/).
Ask read_chat(std::string_view body, const AskDefaults& defaults);
Ask read_completions(std::string_view body, const AskDefaults& defaults);
Ask read_messages(std::string_view body, const AskDefaults& defaults);
// Token counting takes the same body without limits and sampling.
Ask read_messages_to_count(std::string_view body, const AskDefaults& defaults);
Ask read_responses(std::string_view body, const AskDefaults& defaults);

}  // namespace ds4::server
