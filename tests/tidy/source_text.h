#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

// Reading C++ just well enough for the checks of tests/tidy.

namespace ds4::tidy {

// `text` with the contents of comments, string and character literals replaced by spaces; lines
// keep their numbers.
std::string blank_comments_and_literals(std::string_view text);

std::vector<std::string_view> lines_of(std::string_view text);

// One function body that a brace counter can see.
struct FunctionBody {
  std::string name;        // the identifier before the first parenthesis of its head
  std::size_t first_line;  // of the opening brace, 1-based
  std::size_t line_count;  // lines after the one of the opening brace, to the closing brace
};

// The outermost function bodies of `code`, which must have been through
// blank_comments_and_literals().  Lambdas and local classes count with the function around them.
std::vector<FunctionBody> functions_of(std::string_view code);

// True when `word` occurs in `line` and is not a part of a longer identifier.
bool contains_word(std::string_view line, std::string_view word);

}  // namespace ds4::tidy
