#pragma once
#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// The rules of the tree as pure functions over text, so that rules_test.cpp can show each of them
// failing.  main.cpp applies them to every file.

namespace ds4::tidy {

inline constexpr std::size_t kFileLinesMax = 600;
inline constexpr std::size_t kFunctionLinesMax = 70;

struct Violation {
  std::string path;  // relative to the root of the tree
  std::size_t line;  // 1-based
  std::string message;
};

using Violations = std::vector<Violation>;

// A file of the tree; `path` is relative to its root, with forward slashes.
struct SourceFile {
  std::string path;
  std::string text;
};

// Module to the modules that it may include, as CMake wrote it.
using Layers = std::map<std::string, std::set<std::string>>;

// Reads lines like "gguf: base;tensor".
Layers parse_layers(std::string_view text);

// Adds the module that a CMakeLists.txt declares, when `layers` lacks it: one that this build
// leaves out, such as a backend without its compiler.
void add_declared_module(std::string_view cmake_lists, Layers& layers);

// Seams that the order of floors alone does not hold.
void check_layers(const Layers& layers, Violations& out);

// Quoted includes of a file under src/, apps/ or include/, and libraries that have one home.
void check_includes(const SourceFile& file, const Layers& layers, Violations& out);

// A header that includes <nlohmann/json.hpp> is for the .cpp files of its own module alone; others
// take <nlohmann/json_fwd.hpp>.
void check_slow_headers(const std::vector<SourceFile>& files, Violations& out);

// Words that no library code, or no file at all, may contain.
void check_words(const SourceFile& file, Violations& out);

// A file that may be longer than the limits, and by how much.
struct Exemption {
  std::string path;
  std::string function;  // empty: the whole file
  std::size_t lines;
  bool used = false;
};

// Reads lines like "src/x/y.cpp 640" or "src/x/y.cpp parse 82"; # starts a comment.
std::vector<Exemption> parse_exemptions(std::string_view text);

// Lengths of files and functions.  An exemption that is larger than what it exempts must shrink.
void check_sizes(const SourceFile& file, std::vector<Exemption>& exemptions, Violations& out);
void check_exemptions_used(const std::vector<Exemption>& exemptions, Violations& out);

// What docs/model.md offers to cite: its equation numbers and headings.
struct ModelPage {
  std::set<std::string> equations;
  std::string headings;  // lower case, one a line
};
ModelPage parse_model_page(std::string_view markdown);

// "docs/model.md, eq. 4" and "docs/model.md, rope" must name something that is there.
void check_citations(const SourceFile& file, const ModelPage& page, Violations& out);

// Documents that a source names, e.g. "docs/formats/x.md", with their lines.
std::vector<std::pair<std::string, std::size_t>> cited_documents(std::string_view source);

// Targets of relative links of a Markdown file, without fragments.
std::vector<std::string> relative_links(std::string_view markdown);

}  // namespace ds4::tidy
