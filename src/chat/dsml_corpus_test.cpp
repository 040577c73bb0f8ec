// The corpus of DSML as models really write it: tests/cases/dsml/*.case, text in and events out.
// To accept new output after reading it: DS4_BLESS=1 ds4_chat_test --gtest_filter='Corpus*'.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/utf8.h"
#include "chat/python_json.h"
#include "chat/response_parser.h"

namespace ds4::chat {
namespace {

const std::filesystem::path kCases = "tests/cases/dsml";

struct Case {
  std::filesystem::path path;
  std::string head;  // the comment and options, as written
  std::string input;
  std::string events;
  ParserOptions options;
  FinishCause cause = FinishCause::kEndOfTurn;
  bool quotes_markup = false;  // the text shown contains markup on purpose
};

ToolSignature parse_signature(const std::string& text) {
  ToolSignature tool;
  const std::size_t open = text.find('(');
  tool.name = text.substr(0, open);
  std::istringstream names(text.substr(open + 1, text.size() - open - 2));
  for (std::string name; std::getline(names, name, ',');)
    tool.parameters.push_back(name);
  return tool;
}

void parse_options(const std::string& line, Case& c) {
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    if (word == "reasoning") c.options.starts_in_reasoning = true;
    if (word == "refuse") c.options.reasoning_calls = ReasoningCalls::kRefuse;
    if (word == "cut") c.cause = FinishCause::kCut;
    if (word == "quotes") c.quotes_markup = true;
    if (word.rfind("tools=", 0) == 0) c.options.tools.push_back(parse_signature(word.substr(6)));
  }
}

Case read_case(const std::filesystem::path& path) {
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const std::string input_mark = "--- input\n";
  const std::string events_mark = "\n--- events\n";
  const std::size_t input = text.find(input_mark);
  const std::size_t events = text.find(events_mark);
  Case c;
  c.path = path;
  if (input == std::string::npos || events == std::string::npos) return c;
  c.head = text.substr(0, input);
  c.input = text.substr(input + input_mark.size(), events - input - input_mark.size());
  c.events = text.substr(events + events_mark.size());
  std::istringstream lines(c.head);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("options: ", 0) == 0) parse_options(line.substr(9), c);
  }
  return c;
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const auto& entry : std::filesystem::directory_iterator(kCases)) {
    if (entry.path().extension() == ".case") cases.push_back(read_case(entry.path()));
  }
  std::sort(cases.begin(), cases.end(),
            [](const Case& a, const Case& b) { return a.path < b.path; });
  return cases;
}

struct Printer {
  std::string operator()(const TextPiece& e) const { return "text " + json_quote(e.text); }
  std::string operator()(const ReasoningPiece& e) const {
    return "reasoning " + json_quote(e.text);
  }
  std::string operator()(const ReasoningEnd&) const { return "reasoning_end"; }
  std::string operator()(const CallBegin& e) const {
    return fmt::format("call {} {}", e.index, json_quote(e.name));
  }
  std::string operator()(const ArgumentPiece& e) const {
    return fmt::format("arguments {} {}", e.index, e.json);
  }
  std::string operator()(const CallEnd& e) const {
    return fmt::format("end {}{}{}", e.index,
                       e.invalid_json.empty() ? "" : " invalid: ", fmt::join(e.invalid_json, ", "));
  }
  std::string operator()(const CallBlockEnd&) const { return "block_end"; }
  std::string operator()(const Malformed& e) const {
    return fmt::format("malformed {} {}", malformed_reason_name(e.reason), json_quote(e.raw));
  }
};

std::string printed(const std::vector<ResponseEvent>& events, const RepairCounts& repairs) {
  std::string out;
  for (const ResponseEvent& event : coalesce(events))
    out += std::visit(Printer(), event) + "\n";
  for (std::size_t i = 0; i < repairs.size(); ++i) {
    if (repairs[i] == 0) continue;
    out += fmt::format("repair {} {}\n", repair_name(static_cast<Repair>(i)), repairs[i]);
  }
  return out;
}

// Feeds the input in the given pieces.
template <class NextBytes>
std::vector<ResponseEvent> run(const Case& c,
                               NextBytes next_bytes,
                               RepairCounts* repairs = nullptr) {
  ResponseParser parser(c.options);
  std::vector<ResponseEvent> events;
  for (std::size_t at = 0; at < c.input.size();) {
    const std::size_t bytes = std::min<std::size_t>(next_bytes(), c.input.size() - at);
    parser.feed(std::string_view(c.input).substr(at, bytes), events);
    at += bytes;
  }
  parser.finish(c.cause, events);
  if (repairs != nullptr) *repairs = parser.repairs();
  return events;
}

Response collected(const std::vector<ResponseEvent>& events) {
  ResponseCollector collector;
  for (const ResponseEvent& event : events)
    collector.add(event);
  return collector.take();
}

TEST(Corpus, EveryCaseGivesItsEvents) {
  const bool bless = std::getenv("DS4_BLESS") != nullptr;
  const auto cases = all_cases();
  ASSERT_GE(cases.size(), 70u);
  for (const Case& c : cases) {
    RepairCounts repairs{};
    const auto events = run(
        c, [&] { return c.input.size(); }, &repairs);
    const std::string actual = printed(events, repairs);
    if (bless) {
      std::ofstream(c.path) << c.head << "--- input\n" << c.input << "\n--- events\n" << actual;
      continue;
    }
    EXPECT_EQ(actual, c.events) << c.path;
  }
}

TEST(Corpus, EventsDoNotDependOnThePieces) {
  std::mt19937 random(1);
  for (const Case& c : all_cases()) {
    RepairCounts whole_repairs{};
    RepairCounts byte_repairs{};
    const auto whole = coalesce(run(
        c, [&] { return c.input.size(); }, &whole_repairs));
    EXPECT_EQ(coalesce(run(
                  c, [] { return 1; }, &byte_repairs)),
              whole)
        << c.path;
    EXPECT_EQ(byte_repairs, whole_repairs) << c.path;
    for (int round = 0; round < 20; ++round) {
      EXPECT_EQ(coalesce(run(c, [&] { return 1 + random() % 12; })), whole) << c.path;
    }
  }
}

TEST(Corpus, PiecesAreValidUtf8AndArgumentsValidJson) {
  for (const Case& c : all_cases()) {
    const auto events = run(c, [] { return 1; });
    for (const ResponseEvent& event : events) {
      if (const auto* text = std::get_if<TextPiece>(&event)) {
        EXPECT_TRUE(is_valid_utf8(text->text));
      }
      if (const auto* piece = std::get_if<ArgumentPiece>(&event)) {
        EXPECT_TRUE(is_valid_utf8(piece->json));
      }
    }
    for (const ParsedCall& call : collected(events).calls) {
      EXPECT_TRUE(split_object(call.arguments).has_value()) << c.path << ": " << call.arguments;
    }
  }
}

bool shows_markup(const std::string& text) {
  return text.find("DSML") != std::string::npos || text.find("<invoke") != std::string::npos ||
         text.find("<parameter") != std::string::npos || text.find("think>") != std::string::npos;
}

TEST(Corpus, MarkupNeverShows) {
  for (const Case& c : all_cases()) {
    if (c.quotes_markup || c.path.stem() == "04_bare_undeclared") continue;
    const Response response = collected(run(c, [] { return 1; }));
    EXPECT_FALSE(shows_markup(response.text)) << c.path;
    EXPECT_FALSE(shows_markup(response.reasoning)) << c.path;
  }
}

TEST(Corpus, ACutAnywhereGivesNoHalfCallAndNoMarkup) {
  for (const Case& whole : all_cases()) {
    if (whole.quotes_markup || whole.path.stem() == "04_bare_undeclared") continue;
    const auto whole_calls = collected(run(whole, [] { return 64; })).calls;
    for (std::size_t bytes = 0; bytes < whole.input.size(); ++bytes) {
      Case cut = whole;
      cut.input.resize(bytes);
      cut.cause = FinishCause::kCut;
      const Response response = collected(run(cut, [] { return 64; }));
      EXPECT_FALSE(shows_markup(response.text)) << whole.path << " at " << bytes;
      EXPECT_FALSE(shows_markup(response.reasoning)) << whole.path << " at " << bytes;
      EXPECT_EQ(response.text.find("<tool"), std::string::npos) << whole.path << " at " << bytes;
      ASSERT_LE(response.calls.size(), whole_calls.size()) << whole.path << " at " << bytes;
      for (std::size_t i = 0; i < response.calls.size(); ++i) {
        EXPECT_EQ(response.calls[i], whole_calls[i]) << whole.path << " at " << bytes;
      }
    }
  }
}

}  // namespace
}  // namespace ds4::chat
