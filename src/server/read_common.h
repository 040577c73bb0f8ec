#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/ask.h"
#include "server/json_read.h"

// What the readers of several protocols share.  Errors as in json_read.h.
namespace ds4::server {

// What every protocol has: the model with the thinking defaults that its aliases stand for;
// temperature, top_p, top_k, min_p, seed, stream; `thinking` as an object {type, budget_tokens} or
// a flag, `think`, `reasoning_effort`, `thinking_budget`, `chat_template_kwargs`.
void read_settings(const Fields& body, const AskDefaults& defaults, Ask& ask);
// The answer's length limit under that name; nothing when it is absent.
void read_tokens_max(const Fields& body, std::string_view name, Ask& ask);
// `top_logprobs`, or whatever it is called there: 0 to 20.
std::optional<std::uint32_t> read_top_logprobs(const Fields& body, std::string_view name);
// A string or a list of at most 16 of them; empty ones are refused.
std::vector<std::string> read_stops(const Fields& body, std::string_view name);
// reasoning effort names.
chat::ThinkMode read_effort(const Fields& body, std::string_view name);

// A function object {name, description, parameters} under `where` as a tool; `parameters` may be
// called otherwise.
OfferedTool read_function(const Json& function,
                          const std::string& where,
                          std::string_view parameters_name);
// Text parts (of the types named) joined by blank lines, or a string.  Images and the like are
// refused by name.
std::string read_text_content(const Json& content,
                              const std::string& where,
                              std::initializer_list<std::string_view> text_types);

// `role` of a message that is no tool's: system, developer (the same), user or assistant.
chat::Role read_role(const Fields& message);
// The conversation's first system messages are collected; a later one stays where it is.
void add_system(std::string text, Ask& ask, std::vector<std::string>& system_texts);
// Puts the tools and the system texts where the model expects them: one message before all others,
// the tools first.  System messages that come later become the user's.
void place_system(Ask& ask, const std::vector<std::string>& system_texts);
// OpenAI's `tool_choice`: none, auto, required, one function or custom tool, or a list of those
// that may be called; and `parallel_tool_calls`.
void read_tool_choice(const Fields& body, Ask& ask);
// Leaves only the named tools to be called.  Throws when one is not offered.
void allow_tools(const std::vector<std::string>& names, Ask& ask);
// From here on a call must come.  Throws when no tool is offered.
void require_call(Ask& ask);
// No tool is offered.
void drop_tools(Ask& ask);
// A response format object {type: text | json_object | json_schema, ...}.  `schema_inside` tells
// whether the schema stands in its member `json_schema` (chat) or in the object itself (responses).
enum class SchemaPlace { kMember, kInline };
OutputFormat read_format(const Json& format, const std::string& where, SchemaPlace place);

}  // namespace ds4::server
