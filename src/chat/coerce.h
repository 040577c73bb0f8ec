#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace ds4::chat {

// Arguments after comparison with their schema.
struct CoercedArguments {
  std::string arguments;              // one JSON object
  std::vector<std::string> changed;   // parameters whose value was converted or dropped
  std::vector<std::string> problems;  // one sentence each; empty when the call can be made
};

// Converts argument values to the types that the tool's schema declares, where only one reading is
// possible: "5" to 5 where no string is allowed, a list or object written as a string to itself, 5
// to "5" where only a string is, 5.0 to 5 for an integer, and drops a null, "" or {} placeholder of
// an optional parameter that allows no such value.  Everything else that contradicts the schema, a
// missing required parameter included, is a problem for the model to mend.  Looks at the top level
// alone.  `schema` is the function object of a ToolSchema or its `parameters`.  Never throws for
// what a client or model wrote.
CoercedArguments coerce_arguments(std::string_view arguments, std::string_view schema);

}  // namespace ds4::chat
