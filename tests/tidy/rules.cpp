#include "tests/tidy/rules.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <sstream>

#include "tests/tidy/source_text.h"

namespace ds4::tidy {

namespace {

bool starts_with(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

bool ends_with(std::string_view text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

bool is_header(std::string_view path) {
  return ends_with(path, ".h") || ends_with(path, ".cuh");
}

bool is_test(std::string_view path) {
  return starts_with(path, "tests/") || ends_with(path, "_test.cpp") || ends_with(path, "_test.cu");
}

// "src/cpu/kernels/x.cpp" -> "cpu"; "" outside src/.
std::string module_of(std::string_view path) {
  if (!starts_with(path, "src/")) return "";
  const std::string_view rest = path.substr(4);
  return std::string(rest.substr(0, std::min(rest.find('/'), rest.size())));
}

struct Include {
  std::string target;
  bool quoted;
};

// The target of an #include line; empty for any other line.
Include parse_include(std::string_view line) {
  if (!starts_with(line, "#include ") || line.size() < 11) return {};
  const char close = line[9] == '"' ? '"' : '>';
  const std::size_t end = line.find(close, 10);
  if (end == std::string_view::npos) return {};
  return {std::string(line.substr(10, end - 10)), close == '"'};
}

// A library and the only places that may include it.
struct Home {
  const char* prefix;  // of the include's target
  std::vector<const char*> places;
  const char* reason;
};

const std::vector<Home>& homes() {
  static const std::vector<Home> kHomes = {
      {"cuda", {"src/cuda/", "bench/kernels/"}, "CUDA stays in src/cuda and bench/kernels"},
      {"cublas", {"src/cuda/"}, "CUDA stays in src/cuda"},
      {"nccl", {"src/cuda/"}, "CUDA stays in src/cuda"},
      {"cub/", {"src/cuda/"}, "CUDA stays in src/cuda"},
      {"CLI/", {"apps/", "bench/"}, "command lines are parsed in apps/"},
      {"histedit.h", {"apps/"}, "the line editor belongs to apps/"},
      {"sqlite3.h", {"src/kvstore/", "src/agent/"}, "the catalogue belongs to src/kvstore"},
      {"boost/",
       {"src/server/", "src/cluster/", "src/agent/", "apps/", "tests/"},
       "the network belongs to src/server"},
      {"format", {}, "use <fmt/format.h>"},
      {"ranges", {}, "clang 14 cannot read it"},
  };
  return kHomes;
}

void check_home(const SourceFile& file,
                std::size_t line,
                const std::string& target,
                Violations& out) {
  for (const Home& home : homes()) {
    const std::string_view prefix = home.prefix;
    const bool whole = prefix == "format" || prefix == "ranges";
    if (whole ? target != prefix : !starts_with(target, prefix)) continue;
    const bool at_home =
        std::any_of(home.places.begin(), home.places.end(),
                    [&](const char* place) { return starts_with(file.path, place); });
    if (!at_home)
      out.push_back({file.path, line, "<" + target + "> may not stand here: " + home.reason});
  }
}

void check_quoted(const SourceFile& file,
                  std::size_t line,
                  const std::string& target,
                  const Layers& layers,
                  Violations& out) {
  const std::string to = target.substr(0, std::min(target.find('/'), target.size()));
  const bool is_public = target == "ds4.h" || to == "ds4";
  const bool test_support = to == "tests" && is_test(file.path);
  if (is_public || test_support) return;
  if (target.find('/') == std::string::npos) {
    if (!starts_with(file.path, "src/")) return;  // a neighbour in apps/ or tests/
    out.push_back({file.path, line, "include " + target + " with its module's folder"});
    return;
  }
  const std::string module = module_of(file.path);
  if (module.empty()) return;
  const bool joins_engine = starts_with(file.path, "src/kvstore/engine_") || is_test(file.path);
  if (module == "kvstore" && (to == "engine" || to == "backend") && !joins_engine)
    out.push_back(
        {file.path, line,
         "the store sees bytes: engine_state.h and engine_store.h alone join it to the engine"});
  if (module == "runtime" && to == "cuda") return;  // named only in builds that have it
  const auto allowed = layers.find(module);
  if (to == module || (allowed != layers.end() && allowed->second.count(to) != 0)) return;
  out.push_back({file.path, line,
                 module + " may not include " + target + ": its ds4_module() does not name " + to +
                     " in DEPS"});
}

struct Word {
  std::string word;
  const char* instead;
};

// Spelt in two halves so that this file passes its own check.
const std::vector<Word>& unfinished_marks() {
  static const std::vector<Word> kMarks = {
      {std::string("TO") + "DO", "finish it before it lands"},
      {std::string("FIX") + "ME", "finish it before it lands"},
      {std::string("X") + "XX", "finish it before it lands"},
      {std::string("HA") + "CK", "say what it works around and why"},
      {std::string("not imple") + "mented", "refuse by name what is not supported"},
      {std::string("unimple") + "mented", "refuse by name what is not supported"},
  };
  return kMarks;
}

const std::vector<Word>& library_words() {
  static const std::vector<Word> kWords = {
      {"using namespace ds4", "qualify the name or open the namespace"},
      {"std::cout", "libraries do not print: take a base/log.h LogSink"},
      {"std::cerr", "libraries do not print: take a base/log.h LogSink"},
      {"std::clog", "libraries do not print: take a base/log.h LogSink"},
      {"printf(", "libraries do not print: take a base/log.h LogSink"},
      {"fprintf(", "libraries do not print: take a base/log.h LogSink"},
      {"std::puts(", "libraries do not print: take a base/log.h LogSink"},
      {"fmt::print(", "libraries do not print: take a base/log.h LogSink"},
      {"exit(", "libraries do not end the process: throw ds4::Error"},
      {"_exit(", "libraries do not end the process: throw ds4::Error"},
      {"std::abort(", "DS4_CHECK is for our own mistakes, ds4::Error for everything else"},
      {"rand(", "use sample/random.h or a <random> engine with a seed"},
  };
  return kWords;
}

const std::vector<Word>& code_words() {
  static const std::vector<Word> kWords = {
      {"using namespace std;", "qualify the name"},
      {"std::endl", "write '\\n'"},
  };
  return kWords;
}

// The one place that ends the process when our own code is wrong.
bool is_check_failure_handler(std::string_view path) {
  return path == "src/base/error.cpp";
}

bool is_cpp(std::string_view path) {
  return is_header(path) || ends_with(path, ".cpp") || ends_with(path, ".cu") ||
         ends_with(path, ".c");
}

void report_words(const SourceFile& file,
                  std::size_t line_number,
                  std::string_view line,
                  const std::vector<Word>& words,
                  Violations& out) {
  for (const Word& word : words) {
    if (contains_word(line, word.word))
      out.push_back({file.path, line_number, word.word + " is banned: " + word.instead});
  }
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// A tracker number: a reader of the tree has no tracker at hand.
bool cites_ticket(std::string_view line) {
  for (const char* word : {"issue ", "issue #", "ticket ", "PR ", "PR #", "pull request "}) {
    const std::string_view key = word;
    for (std::size_t at = line.find(key); at != std::string_view::npos;
         at = line.find(key, at + 1)) {
      const std::size_t number = at + key.size();
      const bool starts = at == 0 || std::isalpha(static_cast<unsigned char>(line[at - 1])) == 0;
      if (starts && number < line.size() && is_digit(line[number])) return true;
    }
  }
  return false;
}

Exemption* find_exemption(std::vector<Exemption>& exemptions,
                          const std::string& path,
                          const std::string& function) {
  for (Exemption& exemption : exemptions) {
    if (exemption.path == path && exemption.function == function) return &exemption;
  }
  return nullptr;
}

void check_length(const std::string& path,
                  const std::string& function,
                  std::size_t line,
                  std::size_t length,
                  std::size_t limit,
                  std::vector<Exemption>& exemptions,
                  Violations& out) {
  if (length <= limit) return;
  Exemption* exemption = find_exemption(exemptions, path, function);
  const std::string what = function.empty() ? "the file" : function + "()";
  const std::string size = what + " has " + std::to_string(length) + " lines";
  if (exemption == nullptr) {
    out.push_back({path, line, size + ", more than " + std::to_string(limit) + ": split it"});
    return;
  }
  exemption->used = true;
  if (length > exemption->lines)
    out.push_back(
        {path, line, size + ", more than its exemption of " + std::to_string(exemption->lines)});
  if (length < exemption->lines)
    out.push_back(
        {path, line, size + ": lower its exemption from " + std::to_string(exemption->lines)});
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

// What follows "docs/model.md, " up to the end of the phrase.
std::string cited_phrase(std::string_view rest) {
  const std::size_t end = rest.find_first_of(").;:\n", rest.substr(0, 4) == "eq. " ? 4 : 0);
  std::string phrase(rest.substr(0, std::min(end, rest.size())));
  while (!phrase.empty() && phrase.back() == ' ')
    phrase.pop_back();
  return phrase;
}

}  // namespace

Layers parse_layers(std::string_view text) {
  Layers layers;
  for (const std::string_view line : lines_of(text)) {
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    std::set<std::string>& deps = layers[std::string(line.substr(0, colon))];
    std::istringstream rest{std::string(line.substr(colon + 1))};
    for (std::string dep; std::getline(rest, dep, ';');) {
      dep.erase(std::remove(dep.begin(), dep.end(), ' '), dep.end());
      if (!dep.empty()) deps.insert(dep);
    }
  }
  return layers;
}

void add_declared_module(std::string_view cmake_lists, Layers& layers) {
  const std::size_t call = cmake_lists.find("ds4_module(");
  if (call == std::string_view::npos) return;
  std::string words(cmake_lists.substr(call + 11));
  words = words.substr(0, words.find(')'));
  std::istringstream in{words};
  std::string name;
  in >> name;
  if (layers.count(name) != 0) return;
  std::set<std::string>& deps = layers[name];
  bool in_deps = false;
  for (std::string word; in >> word;) {
    const bool keyword =
        std::all_of(word.begin(), word.end(), [](unsigned char c) { return std::isupper(c) != 0; });
    if (keyword) in_deps = word == "DEPS";
    if (!keyword && in_deps) deps.insert(word);
  }
}

void check_layers(const Layers& layers, Violations& out) {
  struct Ban {
    const char* module;  // "*": every module but `except`
    const char* dep;
    const char* except;
    const char* reason;
  };
  static constexpr std::array<Ban, 9> kBans = {{
      {"*", "cpu", "runtime", "runtime alone names backends"},
      {"*", "cuda", "runtime", "runtime alone names backends"},
      {"server", "gguf", "", "products see no file format"},
      {"server", "quant", "", "products see no block format"},
      {"server", "backend", "", "products see the engine, not its machines"},
      {"agent", "gguf", "", "products see no file format"},
      {"agent", "quant", "", "products see no block format"},
      {"agent", "backend", "", "products see the engine, not its machines"},
      {"chat", "model", "", "prompts are tested as text"},
  }};
  for (const auto& [module, deps] : layers) {
    for (const Ban& ban : kBans) {
      const bool applies = module == ban.module || (ban.module[0] == '*' && module != ban.except);
      if (applies && module != ban.dep && deps.count(ban.dep) != 0)
        out.push_back({"src/" + module + "/CMakeLists.txt", 1,
                       module + " may not depend on " + ban.dep + ": " + ban.reason});
    }
  }
}

void check_includes(const SourceFile& file, const Layers& layers, Violations& out) {
  const std::string module = module_of(file.path);
  if (!module.empty() && layers.count(module) == 0) {
    const std::string message = "src/" + module + " is no ds4_module()";
    if (out.empty() || out.back().message != message) out.push_back({file.path, 1, message});
    return;
  }
  std::size_t number = 0;
  for (const std::string_view line : lines_of(file.text)) {
    ++number;
    const Include include = parse_include(line);
    if (include.target.empty()) continue;
    if (include.quoted) {
      check_quoted(file, number, include.target, layers, out);
    } else {
      check_home(file, number, include.target, out);
    }
  }
  if (is_header(file.path) && starts_with(file.path, "src/") &&
      !starts_with(file.text, "#pragma once"))
    out.push_back({file.path, 1, "a header starts with #pragma once"});
}

void check_slow_headers(const std::vector<SourceFile>& files, Violations& out) {
  // Header to the module that it belongs to, for headers that include the library.
  std::map<std::string, std::string> slow;
  for (const SourceFile& file : files) {
    if (!is_header(file.path) || module_of(file.path).empty()) continue;
    for (const std::string_view line : lines_of(file.text)) {
      if (parse_include(line).target == "nlohmann/json.hpp")
        slow[file.path.substr(4)] = module_of(file.path);
    }
  }
  for (const SourceFile& file : files) {
    std::size_t number = 0;
    for (const std::string_view line : lines_of(file.text)) {
      ++number;
      const auto found = slow.find(parse_include(line).target);
      if (found == slow.end() || is_test(file.path)) continue;
      if (is_header(file.path) || module_of(file.path) != found->second)
        out.push_back({file.path, number,
                       found->first + " brings <nlohmann/json.hpp>, which is slow to compile: only "
                                      "the .cpp files of its own module may include it"});
    }
  }
}

void check_words(const SourceFile& file, Violations& out) {
  std::size_t number = 0;
  for (const std::string_view line : lines_of(file.text)) {
    ++number;
    report_words(file, number, line, unfinished_marks(), out);
    if (cites_ticket(line))
      out.push_back(
          {file.path, number, "tracker numbers are banned: say what the code needs to say"});
  }
  if (!is_cpp(file.path)) return;
  const std::string code = blank_comments_and_literals(file.text);
  const bool library = (starts_with(file.path, "src/") || starts_with(file.path, "include/")) &&
                       !is_test(file.path) && !is_check_failure_handler(file.path);
  number = 0;
  for (const std::string_view line : lines_of(code)) {
    ++number;
    report_words(file, number, line, code_words(), out);
    if (!starts_with(file.path, "apps/") && !is_test(file.path) && contains_word(line, "getenv("))
      out.push_back({file.path, number, "getenv( is banned: options are parsed once, in apps/"});
    if (library) report_words(file, number, line, library_words(), out);
  }
}

std::vector<Exemption> parse_exemptions(std::string_view text) {
  std::vector<Exemption> exemptions;
  for (const std::string_view line : lines_of(text)) {
    std::istringstream fields{std::string(line.substr(0, line.find('#')))};
    std::vector<std::string> words;
    for (std::string word; fields >> word;)
      words.push_back(word);
    if (words.size() < 2) continue;
    exemptions.push_back({words[0], words.size() > 2 ? words[1] : "",
                          static_cast<std::size_t>(std::stoul(words.back())), false});
  }
  return exemptions;
}

void check_sizes(const SourceFile& file, std::vector<Exemption>& exemptions, Violations& out) {
  check_length(file.path, "", 1, lines_of(file.text).size(), kFileLinesMax, exemptions, out);
  for (const FunctionBody& body : functions_of(blank_comments_and_literals(file.text)))
    check_length(file.path, body.name, body.first_line, body.line_count, kFunctionLinesMax,
                 exemptions, out);
}

void check_exemptions_used(const std::vector<Exemption>& exemptions, Violations& out) {
  for (const Exemption& exemption : exemptions) {
    if (!exemption.used)
      out.push_back({"tests/tidy/exemptions.txt", 1,
                     "remove the exemption of " + exemption.path + " " + exemption.function +
                         ": nothing needs it"});
  }
}

ModelPage parse_model_page(std::string_view markdown) {
  ModelPage page;
  for (const std::string_view line : lines_of(markdown)) {
    if (starts_with(line, "#")) page.headings += lower(line) + "\n";
    // An equation's number stands in bold parentheses: **(12)**.
    for (std::size_t at = line.find("**("); at != std::string_view::npos;
         at = line.find("**(", at + 1)) {
      const std::size_t end = line.find(")**", at);
      if (end != std::string_view::npos)
        page.equations.insert(std::string(line.substr(at + 3, end - at - 3)));
    }
  }
  return page;
}

void check_citations(const SourceFile& file, const ModelPage& page, Violations& out) {
  static constexpr std::string_view kMark = "docs/model.md, ";
  std::size_t number = 0;
  for (const std::string_view line : lines_of(file.text)) {
    ++number;
    const std::size_t at = line.find(kMark);
    if (at == std::string_view::npos) continue;
    const std::string phrase = cited_phrase(line.substr(at + kMark.size()));
    const bool known =
        starts_with(phrase, "eq. ")
            ? page.equations.count(phrase.substr(4)) != 0
            : !phrase.empty() && page.headings.find(lower(phrase)) != std::string::npos;
    if (!known)
      out.push_back(
          {file.path, number, "docs/model.md has no equation or heading \"" + phrase + "\""});
  }
}

std::vector<std::pair<std::string, std::size_t>> cited_documents(std::string_view source) {
  std::vector<std::pair<std::string, std::size_t>> documents;
  std::size_t number = 0;
  for (const std::string_view line : lines_of(source)) {
    ++number;
    for (std::size_t at = line.find("docs/"); at != std::string_view::npos;
         at = line.find("docs/", at + 1)) {
      const std::size_t end = line.find(".md", at);
      const std::size_t stop = line.find_first_of(" \"()*,", at);
      if (end != std::string_view::npos && end < stop)
        documents.emplace_back(line.substr(at, end + 3 - at), number);
    }
  }
  return documents;
}

std::vector<std::string> relative_links(std::string_view markdown) {
  std::vector<std::string> links;
  for (std::size_t at = markdown.find("]("); at != std::string_view::npos;
       at = markdown.find("](", at + 1)) {
    const std::size_t end = markdown.find(')', at);
    if (end == std::string_view::npos) break;
    std::string target(markdown.substr(at + 2, end - at - 2));
    target = target.substr(0, target.find('#'));
    if (!target.empty() && target.find("://") == std::string::npos &&
        !starts_with(target, "mailto:"))
      links.push_back(target);
  }
  return links;
}

}  // namespace ds4::tidy
