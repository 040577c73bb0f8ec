// Golden transcripts: every protocol's stream and whole answer for given events, byte for byte in
// tests/cases/sse.  To accept new output after reading it: DS4_BLESS=1 ds4_server_test
// --gtest_filter='Golden*'.
#include "server/writer.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

namespace ds4::server {
namespace {

const std::filesystem::path kCases = "tests/cases/sse";

struct Scenario {
  const char* name;
  std::vector<AnswerEvent> events;
};

Outcome outcome(Finish finish, bool reasoning_closed = true) {
  Outcome outcome;
  outcome.finish = finish;
  outcome.reasoning_closed = reasoning_closed;
  outcome.usage = {
      .prompt_tokens = 20, .cached_tokens = 12, .answer_tokens = 9, .reasoning_tokens = 3};
  if (finish == Finish::kStopText) outcome.stop_text = "END";
  if (finish == Finish::kError) outcome.message = "the device failed";
  if (finish == Finish::kError) outcome.error = ErrorCode::kDevice;
  return outcome;
}

std::vector<Scenario> scenarios() {
  ReuseReport start;
  start.prompt_tokens = 20;
  start.reused_tokens = 12;
  const PromptProgress progress{20, 20};
  const CallOpened weather{"call_1", "get_weather"};
  const CallOpened time{"call_2", "get_time"};
  return {
      {"text",
       {start, progress, TextDelta{"Hel"}, TextDelta{"lo \"you\""}, outcome(Finish::kStop)}},
      {"thinking",
       {start, ReasoningDelta{"Hm"}, ReasoningDelta{"m."}, ReasoningClosed{}, TextDelta{"Yes."},
        outcome(Finish::kStop)}},
      {"calls",
       {start, ReasoningDelta{"Look."}, ReasoningClosed{}, TextDelta{"I look."}, weather,
        CallArguments{R"({"city": "Oslo"})"}, CallClosed{}, time, CallArguments{"{}"}, CallClosed{},
        outcome(Finish::kToolCalls)}},
      {"call_in_pieces",
       {start, weather, CallArguments{R"({"city": ")"}, CallArguments{"Os"}, CallArguments{"lo\"}"},
        CallClosed{}, outcome(Finish::kToolCalls)}},
      {"custom_call",
       {start, CallOpened{"call_1", "apply_patch"}, CallArguments{R"({"input": "a)"},
        CallArguments{R"( \"b\")"}, CallArguments{R"(\n\u0)"}, CallArguments{R"(0e9")"},
        CallArguments{"}"}, CallClosed{}, outcome(Finish::kToolCalls)}},
      {"call_cut",
       {start, time, CallArguments{"{}"}, CallClosed{}, weather, CallArguments{R"({"city": "Os)"},
        CallVoided{}, outcome(Finish::kLength)}},
      {"cut_in_thinking", {start, ReasoningDelta{"Hm"}, outcome(Finish::kLength, false)}},
      {"stop_text", {start, TextDelta{"before "}, outcome(Finish::kStopText)}},
      {"nothing", {start, outcome(Finish::kStop)}},
      {"failed", {start, TextDelta{"par"}, outcome(Finish::kError)}},
      {"logprobs",
       {start, TextDelta{"A"}, TokenInfo{{"A", -0.25}, {{"A", -0.25}, {"\xC3", -1.5}}},
        outcome(Finish::kStop)}},
  };
}

Ask ask_for(Protocol protocol, const Scenario& scenario) {
  Ask ask;
  ask.protocol = protocol;
  ask.model = "deepseek-v4-flash";
  ask.include_usage = true;
  for (const char* name : {"get_weather", "get_time"}) {
    OfferedTool tool;
    tool.name = tool.wire_name = name;
    ask.tools.push_back(tool);
  }
  OfferedTool custom;
  custom.name = custom.wire_name = "apply_patch";
  custom.is_custom = true;
  ask.tools.push_back(custom);
  if (std::string(scenario.name) == "logprobs") ask.top_logprobs = 2;
  return ask;
}

std::string transcript(Protocol protocol, const Scenario& scenario) {
  const Ask ask = ask_for(protocol, scenario);
  const WriterOptions options{.created_s = 1767225600, .id = "id_1"};
  const auto stream = make_writer(ask, options);
  std::string out;
  stream->begin(out);
  stream->keep_alive(out);
  AnswerRecord record;
  for (const AnswerEvent& event : scenario.events) {
    stream->add(event, out);
    record.add(event);
  }
  const Outcome& end = std::get<Outcome>(scenario.events.back());
  if (end.finish != Finish::kError)
    out += "--- whole\n" + make_writer(ask, options)->whole(record, end) + "\n";
  return out;
}

TEST(Golden, TranscriptsOfEveryProtocol) {
  const bool bless = std::getenv("DS4_BLESS") != nullptr;
  for (const Protocol protocol :
       {Protocol::kChat, Protocol::kCompletions, Protocol::kMessages, Protocol::kResponses}) {
    for (const Scenario& scenario : scenarios()) {
      const auto path =
          kCases / (std::string(protocol_name(protocol)) + "_" + scenario.name + ".sse");
      const std::string got = transcript(protocol, scenario);
      if (bless) {
        std::filesystem::create_directories(kCases);
        std::ofstream(path) << got;
      }
      std::ifstream file(path);
      const std::string expected{std::istreambuf_iterator<char>(file), {}};
      EXPECT_EQ(got, expected) << path;
    }
  }
}

}  // namespace
}  // namespace ds4::server
