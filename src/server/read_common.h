#pragma once
#include <string>
#include <vector>

#include "server/ask.h"
#include "server/json_read.h"

// What the readers of several protocols share.  Errors as in json_read.h.
namespace ds4::server {

// temperature, top_p, top_k, min_p, seed, stream.
void read_sampling(const Fields& body, const AskDefaults& defaults, Ask& ask);
// A string or a list of at most 16 of them; empty ones are refused.
std::vector<std::string> read_stops(const Fields& body, std::string_view name);
// `name` and the thinking defaults that its aliases stand for.
void read_model(const Fields& body, const AskDefaults& defaults, Ask& ask);
// reasoning effort names.
chat::ThinkMode read_effort(const Fields& body, std::string_view name);
// `thinking` as an object {type, budget_tokens} or a flag, `think`, `reasoning_effort`,
// `thinking_budget`, `chat_template_kwargs`.
void read_thinking(const Fields& body, Ask& ask);

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

// Puts the tools and the system texts where the model expects them: one message before all others,
// the tools first.  System messages that come later become the user's.
void place_system(Ask& ask, const std::vector<std::string>& system_texts);
// Throws when the tool choice names no tool that is offered, or requires one where none is.
void check_tool_choice(const Ask& ask);
// A response format object {type: text | json_object | json_schema, ...}.  `schema_inside` tells
// whether the schema stands in its member `json_schema` (chat) or in the object itself (responses).
enum class SchemaPlace { kMember, kInline };
OutputFormat read_format(const Json& format, const std::string& where, SchemaPlace place);

}  // namespace ds4::server
