#include "server/answer.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <openssl/rand.h>

#include "base/hash.h"
#include "chat/coerce.h"
#include "tokenizer/markers.h"

namespace ds4::server {

namespace {

// An event that carries no text still takes room in the queue.
constexpr std::size_t kEventBytes = 32;

// Joins neighbouring pieces, so that a client that reads slowly gets few large ones.
bool join(AnswerEvent& last, const AnswerEvent& next) {
  if (auto* text = std::get_if<TextDelta>(&last)) {
    if (const auto* more = std::get_if<TextDelta>(&next)) {
      text->text += more->text;
      return true;
    }
  }
  if (auto* reasoning = std::get_if<ReasoningDelta>(&last)) {
    if (const auto* more = std::get_if<ReasoningDelta>(&next)) {
      reasoning->text += more->text;
      return true;
    }
  }
  if (auto* arguments = std::get_if<CallArguments>(&last)) {
    if (const auto* more = std::get_if<CallArguments>(&next)) {
      arguments->json += more->json;
      return true;
    }
  }
  if (auto* progress = std::get_if<PromptProgress>(&last)) {
    if (const auto* more = std::get_if<PromptProgress>(&next)) {
      *progress = *more;
      return true;
    }
  }
  return false;
}

}  // namespace

std::string random_id(std::string_view prefix, std::size_t byte_count) {
  std::vector<std::uint8_t> bytes(byte_count);
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1)
    throw Error(ErrorCode::kInternal, "the system's random source failed");
  return std::string(prefix) + to_hex(bytes);
}

void AnswerRecord::add(const AnswerEvent& event) {
  if (const auto* piece = std::get_if<TextDelta>(&event)) text += piece->text;
  if (const auto* piece = std::get_if<ReasoningDelta>(&event)) reasoning += piece->text;
  if (const auto* token = std::get_if<TokenInfo>(&event)) tokens.push_back(*token);
  if (const auto* call = std::get_if<CallOpened>(&event))
    calls.push_back({call->id, call->name, {}});
  if (const auto* piece = std::get_if<CallArguments>(&event)) calls.back().arguments += piece->json;
  if (std::holds_alternative<CallVoided>(event)) calls.pop_back();
}

std::vector<AnswerEvent> events_of(const FinishedCall& call) {
  return {CallOpened{call.id, call.name}, CallArguments{call.arguments}, CallClosed{}};
}

Answer::Answer(const tokenizer::Tokenizer& tokenizer,
               AnswerOptions options,
               std::function<void()> notify)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      notify_(std::move(notify)),
      stops_(options_.stops) {
  start_parser(chat::is_thinking(options_.render.think));
}

Answer::~Answer() = default;

void Answer::start_parser(bool in_reasoning) {
  chat::ParserOptions parser;
  parser.starts_in_reasoning = in_reasoning;
  // A mask that must hold cannot begin behind the calls.
  if (options_.grammars.answer) parser.reasoning_calls = chat::ReasoningCalls::kRefuse;
  std::vector<chat::ToolSchema> schemas;
  for (const OfferedTool& tool : options_.tools)
    schemas.push_back(tool.schema);
  parser.tools = chat::tool_signatures(schemas);
  parser_.emplace(std::move(parser));
  raw_.clear();
  block_text_.clear();
  open_calls_.clear();
  shows_calls_ = false;
  matcher_.reset();
  if (!in_reasoning) begin_answer();
}

// Behind the reasoning, or where there is none.
void Answer::begin_answer() {
  if (options_.grammars.answer) begin_mask(options_.grammars.answer);
}

void Answer::begin_mask(const std::shared_ptr<const grammar::Grammar>& grammar) {
  matcher_.emplace(grammar, options_.trie);
  if (options_.grammars.calls_are_certain) parser_->trust_json();
}

// --- the queue ---

void Answer::push(AnswerEvent event, std::size_t bytes) {
  bool was_empty = false;
  {
    const std::lock_guard lock(mutex_);
    was_empty = queue_.empty();
    queued_bytes_ += bytes + kEventBytes;
    if (was_empty || !join(queue_.back(), event)) queue_.push_back(std::move(event));
  }
  if (was_empty) notify_();
}

std::vector<AnswerEvent> Answer::take(bool& was_full) {
  const std::lock_guard lock(mutex_);
  was_full = queued_bytes_.exchange(0) >= options_.queued_bytes_max;
  return std::exchange(queue_, {});
}

// --- the engine's calls ---

void Answer::on_start(const ReuseReport& report) {
  push(report, report.expected.size() + report.found.size());
}

void Answer::on_prefill(std::uint32_t done_tokens, std::uint32_t total_tokens) {
  push(PromptProgress{done_tokens, total_tokens}, 0);
}

TokenChoice Answer::choice() {
  // Structure is drawn greedily: a mistyped tag costs the call.  Payload is the request's.
  return {.allowed = matcher_ ? &matcher_->allowed() : nullptr, .greedy = parser_->in_structure()};
}

void Answer::push_logprobs(const GeneratedToken& token) {
  if (!options_.top_logprobs || parser_->in_reasoning() || parser_->in_calls() ||
      tokenizer_.is_marker(token.token))
    return;
  TokenInfo info;
  info.chosen = {std::string(tokenizer_.token_bytes(token.token)), token.logprob};
  for (const sample::TokenLogprob& other : token.top)
    info.top.push_back({std::string(tokenizer_.token_bytes(other.token)), other.logprob});
  const std::size_t bytes = 64 * (info.top.size() + 1);
  push(std::move(info), bytes);
}

TokenVerdict Answer::on_token(const GeneratedToken& token) {
  if (parser_->in_reasoning()) ++reasoning_tokens_;
  if (token.is_end) return after_end();
  // A token that the mask did not let through has only a test's client drawn.
  if (matcher_ && !matcher_->accept(token.token)) matcher_.reset();
  feed(tokenizer_.token_bytes(token.token));
  if (!matcher_ && options_.grammars.calls && parser_->at_block_start())
    begin_mask(options_.grammars.calls);
  push_logprobs(token);
  if (stop_found_) return TokenVerdict::kFinish;
  if (calls_done_) {
    if (finish_calls()) return TokenVerdict::kFinish;
    return send_back(outcome_.message, chat::TranscriptEnd::kInAnswer);
  }
  if (malformed_ && retries_ < options_.tool_retries_max)
    return send_back("The tool call was malformed.", chat::TranscriptEnd::kInAnswer);
  malformed_ = false;
  if (matcher_ && matcher_->must_end()) return TokenVerdict::kFinish;
  if (!options_.think_tokens_max || closed_for_model_ || !parser_->in_reasoning())
    return TokenVerdict::kContinue;
  // A call that is open inside the reasoning gets as much again to end.
  const std::uint32_t budget = *options_.think_tokens_max * (parser_->in_calls() ? 2 : 1);
  if (reasoning_tokens_ < budget) return TokenVerdict::kContinue;
  return close_reasoning(false, options_.think_budget_text);
}

// The model ended its turn.
TokenVerdict Answer::after_end() {
  if (parser_->in_reasoning() && !parser_->in_calls() && !closed_for_model_)
    return close_reasoning(true, "");
  parsed_.clear();
  parser_->finish(chat::FinishCause::kEndOfTurn, parsed_);
  for (const chat::ResponseEvent& event : parsed_)
    handle(event);
  if (calls_done_) {
    if (finish_calls()) return TokenVerdict::kContinue;
    return send_back(outcome_.message, chat::TranscriptEnd::kTurnClosed);
  }
  if (malformed_ && retries_ < options_.tool_retries_max)
    return send_back("The tool call was malformed or incomplete.",
                     chat::TranscriptEnd::kTurnClosed);
  return TokenVerdict::kContinue;
}

TokenVerdict Answer::close_reasoning(bool drops_token, std::string_view before) {
  closed_for_model_ = true;
  insertion_ = {.drops_token = drops_token, .tokens = tokenizer_.encode_text(before)};
  insertion_.tokens.push_back(tokenizer_.marker(tokenizer::kThinkEndMarker));
  feed(before);
  feed(tokenizer::kThinkEndMarker);
  return TokenVerdict::kInsert;
}

// Tells the model what was wrong with its call and lets it try again, in the same answer.
TokenVerdict Answer::send_back(const std::string& problem, chat::TranscriptEnd end) {
  ++retries_;
  ++counts_.tool_retries;
  malformed_ = false;
  calls_done_ = false;
  closed_for_model_ = false;
  const chat::Message result = chat::tool_message(
      "", problem +
              " It was not executed. Write the whole <｜DSML｜tool_calls> block again, with the "
              "names and types of the tool's schema.");
  const tokenizer::RenderedPrompt turn =
      chat::render_continuation({&result, 1}, options_.render, end);
  insertion_ = {.drops_token = false, .tokens = tokenizer_.encode_rendered(turn)};
  start_parser(chat::is_thinking(options_.render.think));
  return TokenVerdict::kInsert;
}

void Answer::feed(std::string_view bytes) {
  if (!parser_->in_reasoning()) raw_ += bytes;
  parsed_.clear();
  parser_->feed(bytes, parsed_);
  for (const chat::ResponseEvent& event : parsed_)
    handle(event);
}

void Answer::show_text(std::string_view text) {
  block_text_ += text;
  if (stop_found_) return;
  std::string shown;
  stop_found_ = stops_.feed(text, shown);
  if (shown.empty()) return;
  const std::size_t bytes = shown.size();
  push(TextDelta{std::move(shown)}, bytes);
}

void Answer::handle(const chat::ResponseEvent& event) {
  if (const auto* text = std::get_if<chat::TextPiece>(&event)) {
    show_text(text->text);
  } else if (const auto* reasoning = std::get_if<chat::ReasoningPiece>(&event)) {
    push(ReasoningDelta{reasoning->text}, reasoning->text.size());
  } else if (std::holds_alternative<chat::ReasoningEnd>(event)) {
    reasoning_closed_ = true;
    push(ReasoningClosed{}, 0);
    begin_answer();
  } else if (const auto* begin = std::get_if<chat::CallBegin>(&event)) {
    open_call(begin->name);
  } else if (const auto* piece = std::get_if<chat::ArgumentPiece>(&event)) {
    open_calls_.back().arguments += piece->json;
    if (shows_calls_) push(CallArguments{piece->json}, piece->json.size());
  } else if (const auto* end = std::get_if<chat::CallEnd>(&event)) {
    open_calls_.back().invalid_json = end->invalid_json;
    if (shows_calls_) push(CallClosed{}, 0);
    call_is_open_ = false;
  } else if (std::holds_alternative<chat::CallBlockEnd>(event)) {
    calls_done_ = true;
  } else if (std::holds_alternative<chat::Malformed>(event)) {
    ++counts_.malformed;
    malformed_ = !options_.tools.empty();
    void_open_call();
    open_calls_.clear();
  }
}

void Answer::open_call(const std::string& name) {
  if (open_calls_.empty()) shows_calls_ = matcher_ && options_.grammars.calls_are_certain;
  open_calls_.push_back({.name = name, .arguments = {}, .invalid_json = {}});
  call_is_open_ = true;
  if (shows_calls_) push(CallOpened{random_id(options_.call_id_prefix), name}, name.size() + 64);
}

void Answer::void_open_call() {
  if (shows_calls_ && call_is_open_) push(CallVoided{}, 0);
  call_is_open_ = false;
}

const OfferedTool* Answer::offers(std::string_view name) const {
  for (const OfferedTool& tool : options_.tools)
    if (tool.name == name && tool.may_be_called) return &tool;
  return nullptr;
}

std::string Answer::problems_of(const std::vector<chat::ParsedCall>& calls) const {
  std::string problems;
  for (const chat::ParsedCall& call : calls) {
    const OfferedTool* tool = offers(call.name);
    if (tool == nullptr) {
      problems += fmt::format("There is no tool \"{}\". ", call.name);
      continue;
    }
    for (const std::string& problem :
         chat::coerce_arguments(call.arguments, tool->schema.json).problems)
      problems += fmt::format("{}: {} ", call.name, problem);
  }
  return problems;
}

// Hands the calls on, unless the model gets another try: then `outcome_.message` says why.
bool Answer::finish_calls() {
  if (shows_calls_) {
    if (raw_.starts_with(block_text_)) outcome_.exact_tool_block = raw_.substr(block_text_.size());
    return true;
  }
  outcome_.message = problems_of(open_calls_);
  if (!outcome_.message.empty() && retries_ < options_.tool_retries_max) return false;
  outcome_.message.clear();
  const std::size_t call_count = open_calls_.size();
  // A tool that nobody offered is not for anyone to run.
  std::erase_if(open_calls_, [&](const chat::ParsedCall& call) { return !offers(call.name); });
  if (options_.one_call_at_most && open_calls_.size() > 1) open_calls_.resize(1);
  calls_done_ = !open_calls_.empty();
  for (const chat::ParsedCall& call : open_calls_) {
    const FinishedCall finished{
        random_id(options_.call_id_prefix), call.name,
        chat::coerce_arguments(call.arguments, offers(call.name)->schema.json).arguments};
    for (AnswerEvent& event : events_of(finished))
      push(std::move(event), finished.arguments.size() + 64);
  }
  // Text shown of this turn is what the block follows.
  const bool is_whole = open_calls_.size() == call_count && calls_done_;
  if (raw_.starts_with(block_text_) && is_whole)
    outcome_.exact_tool_block = raw_.substr(block_text_.size());
  return true;
}

void Answer::on_finish(const GenerationResult& result) {
  const bool ended = result.reason == EndReason::kEndOfTurn;
  outcome_.lacks_reasoning_end = !ended && parser_->in_reasoning();
  outcome_.lacks_end = !ended;
  outcome_.cut_in_calls = !ended && !calls_done_ && parser_->in_calls();
  if (!ended && !calls_done_ && !stop_found_) {
    parsed_.clear();
    parser_->finish(chat::FinishCause::kCut, parsed_);
    for (const chat::ResponseEvent& event : parsed_)
      handle(event);
  }
  const std::string held = stop_found_ ? std::string() : stops_.finish();
  if (!held.empty()) push(TextDelta{held}, held.size());
  counts_.repairs = parser_->repairs();
  outcome_.generation = result;
  outcome_.reasoning_closed = reasoning_closed_;
  outcome_.usage = {.prompt_tokens = result.prompt_tokens,
                    .cached_tokens = std::min(result.reused_tokens, result.prompt_tokens),
                    .answer_tokens = result.generated_tokens,
                    .reasoning_tokens = reasoning_tokens_};
  switch (result.reason) {
    case EndReason::kEndOfTurn:
    case EndReason::kClient:
      outcome_.finish = Finish::kStop;
      break;
    case EndReason::kLength:
      outcome_.finish = Finish::kLength;
      break;
    case EndReason::kCancelled:
      outcome_.finish = Finish::kCancelled;
      break;
    case EndReason::kFailed:
      outcome_.finish = Finish::kError;
      outcome_.error = result.error;
      outcome_.message = result.message;
      break;
  }
  if (stop_found_) {
    outcome_.finish = Finish::kStopText;
    outcome_.stop_text = stops_.found();
  } else if (calls_done_ && outcome_.finish == Finish::kStop) {
    outcome_.finish = Finish::kToolCalls;
  }
  push(std::move(outcome_), 0);
}

const char* finish_word(Finish finish) {
  switch (finish) {
    case Finish::kStop:
      return "stop";
    case Finish::kStopText:
      return "stop_text";
    case Finish::kLength:
      return "length";
    case Finish::kToolCalls:
      return "tool_calls";
    case Finish::kError:
      return "error";
    case Finish::kCancelled:
      return "cancelled";
  }
  return "error";
}

}  // namespace ds4::server
