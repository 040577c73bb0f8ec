#include "tests/tidy/source_text.h"

#include <algorithm>
#include <cctype>

namespace ds4::tidy {

namespace {

bool is_identifier_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

// Finds the end of the literal or comment that starts at a position.
class Blanker {
 public:
  explicit Blanker(std::string_view text) : text_(text), code_(text) {}

  std::string run() {
    while (at_ < text_.size())
      step();
    return std::move(code_);
  }

 private:
  void step() {
    const char c = text_[at_];
    if (text_.substr(at_, 2) == "//") return blank_to(text_.find('\n', at_), 0);
    if (text_.substr(at_, 2) == "/*") return blank_to(text_.find("*/", at_ + 2), 2);
    if (c == '"' && at_ > 0 && text_[at_ - 1] == 'R') return blank_raw_string();
    const bool digit_separator = c == '\'' && at_ > 0 && is_identifier_char(text_[at_ - 1]);
    if ((c == '"' || c == '\'') && !digit_separator) return blank_quoted(c);
    ++at_;
  }

  void blank_quoted(char quote) {
    std::size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != quote && text_[end] != '\n')
      end += text_[end] == '\\' ? 2 : 1;
    blank_to(end, 1);
  }

  void blank_raw_string() {
    const std::size_t open = text_.find('(', at_);
    if (open == std::string_view::npos) return blank_to(open, 0);
    const std::string close = ")" + std::string(text_.substr(at_ + 1, open - at_ - 1)) + "\"";
    blank_to(text_.find(close, open), close.size());
  }

  void blank_to(std::size_t end, std::size_t closing) {
    end = end >= text_.size() ? text_.size() : std::min(text_.size(), end + closing);
    for (; at_ < end; ++at_) {
      if (code_[at_] != '\n') code_[at_] = ' ';
    }
  }

  std::string_view text_;
  std::string code_;
  std::size_t at_ = 0;
};

bool opens_function(std::string_view head) {
  for (const char* keyword : {"namespace", "class", "struct", "union", "enum", "concept"}) {
    const std::size_t found = head.find(keyword);
    if (found != std::string_view::npos && contains_word(head, keyword) && head.find('(') > found)
      return false;
  }
  return head.find(')') != std::string_view::npos;
}

std::string name_in(std::string_view head) {
  const std::size_t paren = head.find('(');
  std::size_t end = std::min(paren, head.size());
  while (end > 0 && std::isspace(static_cast<unsigned char>(head[end - 1])) != 0)
    --end;
  std::size_t begin = end;
  while (begin > 0 && (is_identifier_char(head[begin - 1]) || head[begin - 1] == ':'))
    --begin;
  return std::string(head.substr(begin, end - begin));
}

// The same code without preprocessor lines, whose braces need not balance.
std::string without_directives(std::string_view code) {
  std::string out(code);
  bool continued = false;
  std::size_t begin = 0;
  while (begin < out.size()) {
    const std::size_t end = std::min(out.find('\n', begin), out.size());
    const std::size_t first = out.find_first_not_of(" \t", begin);
    const bool directive = continued || (first < end && out[first] == '#');
    continued = directive && end > begin && out[end - 1] == '\\';
    if (directive)
      std::fill(out.begin() + static_cast<std::ptrdiff_t>(begin),
                out.begin() + static_cast<std::ptrdiff_t>(end), ' ');
    begin = end + 1;
  }
  return out;
}

}  // namespace

std::string blank_comments_and_literals(std::string_view text) {
  return Blanker(text).run();
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

std::vector<FunctionBody> functions_of(std::string_view code) {
  const std::string text = without_directives(code);
  std::vector<FunctionBody> functions;
  std::size_t line = 1;
  std::size_t head_begin = 0;
  int depth = 0;           // of braces
  int function_depth = 0;  // depth inside the body being counted, 0: none
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '\n') ++line;
    if (c == '{') {
      ++depth;
      const std::string_view head = std::string_view(text).substr(head_begin, at - head_begin);
      if (function_depth == 0 && opens_function(head)) {
        function_depth = depth;
        functions.push_back({name_in(head), line, 0});
      }
    }
    if (c == '}') {
      if (depth == function_depth && function_depth != 0) {
        functions.back().line_count = line - functions.back().first_line;
        function_depth = 0;
      }
      --depth;
    }
    if (c == '{' || c == '}' || c == ';') head_begin = at + 1;
  }
  return functions;
}

bool contains_word(std::string_view line, std::string_view word) {
  for (std::size_t at = line.find(word); at != std::string_view::npos;
       at = line.find(word, at + 1)) {
    const std::size_t end = at + word.size();
    const bool starts =
        at == 0 || !is_identifier_char(line[at - 1]) || !is_identifier_char(word[0]);
    const bool ends =
        end == line.size() || !is_identifier_char(line[end]) || !is_identifier_char(word.back());
    if (starts && ends) return true;
  }
  return false;
}

}  // namespace ds4::tidy
