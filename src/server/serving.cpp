#include "server/serving.h"

#include <algorithm>
#include <ctime>
#include <exception>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "engine/prompt_key.h"
#include "server/errors.h"
#include "tokenizer/markers.h"

namespace ds4::server {

namespace {

// Beyond this a client is behind: the answer waits until it has read on.
constexpr std::size_t kUnsentBytesMax = std::size_t{256} << 10;

using Clock = std::chrono::steady_clock;

const char* call_prefix(Protocol protocol) {
  return protocol == Protocol::kMessages ? "toolu_" : "call_";
}

HttpResponse stream_head() {
  return {.status = 200,
          .content_type = "text/event-stream; charset=utf-8",
          .headers = {{"X-Accel-Buffering", "no"}}};
}

}  // namespace

Service::Serving::Serving(Service& service,
                          std::shared_ptr<Exchange> exchange,
                          Ask ask,
                          std::string name_space)
    : service_(service),
      exchange_(std::move(exchange)),
      ask_(std::move(ask)),
      name_space_(std::move(name_space)),
      render_(service.render_options(ask_)),
      number_(++service.request_count_),
      arrived_(Clock::now()),
      last_write_(arrived_) {
  writer_ = make_writer(ask_, {.created_s = std::time(nullptr)});
}

std::optional<Failure> Service::Serving::prepare() {
  grammars_ = service_.grammars_.of(ask_);
  const bool has_calls =
      std::any_of(ask_.messages.begin(), ask_.messages.end(),
                  [](const chat::Message& message) { return !message.tool_calls.empty(); });
  if (has_calls) sent_ = ask_.messages;
  if (service_.options_.replays_exactly) service_.replay_.apply(name_space_, ask_.messages);
  request_.prompt = chat::render(ask_.messages, render_);
  request_.tokens = service_.tokenizer_.encode_rendered(request_.prompt);
  key_ = prompt_key(request_.prompt);
  const std::uint32_t context = service_.scheduler_.options().context;
  const auto prompt_tokens = static_cast<std::uint32_t>(request_.tokens.size());
  if (prompt_tokens >= context) return overflow_failure(ask_.protocol, prompt_tokens, context);
  const std::uint32_t most = service_.options_.answer_tokens_max;
  request_.tokens_max = std::min({ask_.tokens_max.value_or(most), most, context - prompt_tokens});
  request_.sampling = ask_.sampling;
  request_.seed =
      ask_.seed.value_or(static_cast<std::uint64_t>(Clock::now().time_since_epoch().count()));
  request_.top_logprobs = ask_.top_logprobs;
  request_.priority = ask_.priority;
  request_.name_space = name_space_;
  request_.stop = exchange_->gone();
  return std::nullopt;
}

AnswerOptions Service::Serving::answer_options() const {
  AnswerOptions options;
  options.render = render_;
  options.tools = ask_.tools;
  options.stops = ask_.stops;
  options.think_tokens_max = ask_.think_tokens_max;
  if (const auto limit = service_.options_.think_tokens_max)
    options.think_tokens_max = std::min(*limit, options.think_tokens_max.value_or(*limit));
  options.think_budget_text = service_.options_.think_budget_text;
  options.top_logprobs = ask_.top_logprobs;
  options.one_call_at_most = ask_.one_call_at_most;
  options.call_id_prefix = call_prefix(ask_.protocol);
  options.grammars = grammars_;
  options.trie = service_.grammars_.trie();
  return options;
}

void Service::Serving::start() {
  // The answer keeps this object alive, not the other way round.
  auto self = shared_from_this();
  auto slot = std::make_shared<std::weak_ptr<Answer>>();
  auto answer = std::make_shared<Answer>(service_.tokenizer_, answer_options(), [self, slot] {
    self->exchange_->post([self, answer = slot->lock()] {
      if (answer) self->pump(answer);
    });
  });
  *slot = answer;
  service_.scheduler_.submit(std::move(request_), answer);
  on_gone_.emplace(exchange_->gone(), [scheduler = &service_.scheduler_] { scheduler->wake(); });
  if (!ask_.streams) return;
  std::string out;
  HttpResponse head = stream_head();
  for (auto& header : service_.access_.cors_headers(exchange_->request()))
    head.headers.push_back(std::move(header));
  writer_->begin(out);
  exchange_->begin_stream(std::move(head));
  exchange_->write(out);
  exchange_->every(service_.options_.keep_alive, [weak = weak_from_this()] {
    const auto serving = weak.lock();
    if (!serving || Clock::now() - serving->last_write_ < serving->service_.options_.keep_alive)
      return;
    std::string ping;
    serving->writer_->keep_alive(ping);
    serving->exchange_->write(ping);
  });
}

void Service::Serving::pump(const std::shared_ptr<Answer>& answer) {
  if (ask_.streams && exchange_->unsent_bytes() > kUnsentBytesMax) {
    exchange_->on_drained([self = shared_from_this(), answer] { self->pump(answer); });
    return;
  }
  bool was_full = false;
  const std::vector<AnswerEvent> events = answer->take(was_full);
  if (was_full) service_.scheduler_.wake();
  std::string out;
  for (const AnswerEvent& event : events) {
    take(event, out);
    const auto* outcome = std::get_if<Outcome>(&event);
    if (outcome == nullptr) continue;
    // Before the last byte goes out: the client's next request must find it.
    remember(*outcome);
    exchange_->write(ask_.streams ? out : std::string());
    finish(*outcome, answer->counts());
    return;
  }
  if (ask_.streams && !out.empty()) {
    last_write_ = Clock::now();
    exchange_->write(out);
  }
}

void Service::Serving::take(const AnswerEvent& event, std::string& out) {
  record_.add(event);
  if (const auto* report = std::get_if<ReuseReport>(&event)) reuse_ = *report;
  const bool is_token = std::holds_alternative<TextDelta>(event) ||
                        std::holds_alternative<ReasoningDelta>(event) ||
                        std::holds_alternative<CallOpened>(event);
  if (is_token && !has_first_token_) {
    has_first_token_ = true;
    service_.metrics_.count_first_token(
        std::chrono::duration<double>(Clock::now() - arrived_).count());
  }
  if (ask_.streams) writer_->add(event, out);
}

std::string Service::Serving::visible_key(std::vector<chat::Message> messages,
                                          const std::string& reasoning,
                                          const std::string& exact_tool_block) const {
  chat::Message turn = chat::assistant_message(record_.text, reasoning);
  for (const FinishedCall& call : record_.calls)
    turn.tool_calls.push_back({call.id, call.name, call.arguments});
  turn.exact_tool_block = exact_tool_block;
  messages.push_back(std::move(turn));
  // What comes next decides how this turn is shown; what it says does not.
  if (record_.calls.empty()) messages.push_back(chat::user_message("."));
  for (const FinishedCall& call : record_.calls)
    messages.push_back(chat::tool_message(call.id, ""));
  std::string key = prompt_key(chat::render(messages, render_));
  const std::size_t end = key.rfind(kMarkerByte + std::string(tokenizer::kUserMarker));
  DS4_CHECK(end != std::string::npos);
  key.resize(end);
  return key;
}

void Service::Serving::remember(const Outcome& outcome) {
  if (outcome.finish == Finish::kError || outcome.finish == Finish::kCancelled ||
      outcome.finish == Finish::kStopText || outcome.cut_in_calls)
    return;
  if (!outcome.exact_tool_block.empty() && service_.options_.replays_exactly) {
    std::vector<std::string> ids;
    for (const FinishedCall& call : record_.calls)
      ids.push_back(call.id);
    service_.replay_.remember(name_space_, ids, {outcome.exact_tool_block, record_.reasoning});
  }
  std::vector<TokenId> bridge;
  if (outcome.lacks_reasoning_end)
    bridge.push_back(service_.tokenizer_.marker(tokenizer::kThinkEndMarker));
  if (outcome.lacks_end) bridge.push_back(service_.tokenizer_.eos());
  std::vector<VisibleTurn> turns;
  const auto add = [&](const std::vector<chat::Message>& messages, const std::string& block) {
    for (const std::string& reasoning : {record_.reasoning, std::string()})
      turns.push_back({visible_key(messages, reasoning, block), bridge});
  };
  add(ask_.messages, outcome.exact_tool_block);
  // The state may come back from disk to a server that remembers no calls.
  if (!sent_.empty() || !record_.calls.empty()) add(sent_.empty() ? ask_.messages : sent_, "");
  service_.scheduler_.remember(outcome.generation.ticket, std::move(turns));
}

void Service::Serving::finish(const Outcome& outcome, const AnswerCounts& counts) {
  service_.metrics_.count_answer(ask_.protocol, outcome, counts);
  on_gone_.reset();
  const bool ends_behind = service_.trace_ != nullptr;
  const auto write_down = [self = shared_from_this(), outcome, ends_behind] {
    self->report(outcome);
    if (ends_behind) self->exchange_->post([self, outcome] { self->end(outcome); });
  };
  const bool reads_disk = reuse_.explain_store != nullptr || ends_behind;
  if (!reads_disk || !service_.reporter_.submit(write_down)) {
    report(outcome);
  } else if (ends_behind) {
    return;
  }
  end(outcome);
}

void Service::Serving::end(const Outcome& outcome) {
  if (ask_.streams) {
    service_.metrics_.count_request(exchange_->request().path, 200);
    exchange_->end_stream();
    return;
  }
  if (outcome.finish == Finish::kError || outcome.finish == Finish::kCancelled) {
    const Error error(outcome.finish == Finish::kCancelled ? ErrorCode::kCancelled : outcome.error,
                      outcome.message.empty() ? "the answer was cancelled" : outcome.message);
    return service_.reply(*exchange_, error_response(ask_.protocol, failure_of(error)));
  }
  service_.reply_json(*exchange_, writer_->whole(record_, outcome));
}

void Service::Serving::report(const Outcome& outcome) const {
  try {
    write_report(outcome);
  } catch (const std::exception& error) {
    log(service_.options_.log, LogLevel::kError,
        fmt::format("answer #{} could not be written down: {}", number_, error.what()));
  }
}

void Service::Serving::write_report(const Outcome& outcome) const {
  const GenerationResult& result = outcome.generation;
  const MissNote stored = reuse_.explain_store ? reuse_.explain_store(key_) : MissNote{};
  std::string why;
  if (!reuse_.reason.empty())
    why = fmt::format(", memory: {} at byte {}", reuse_.reason, reuse_.first_difference);
  if (!stored.reason.empty()) {
    why += fmt::format(", disk: {} at byte {} after {} tokens", stored.reason,
                       stored.first_difference, stored.agreed_tokens);
  }
  log(service_.options_.log, LogLevel::kInfo,
      fmt::format("{} #{}{} prompt={} reused={} ({}{}) answer={} "
                  "finish={} queue={:.3f}s prefill={:.3f}s decode={:.3f}s",
                  protocol_name(ask_.protocol), number_, ask_.streams ? " stream" : "",
                  result.prompt_tokens, result.reused_tokens, reuse_source_name(reuse_.source), why,
                  result.generated_tokens, finish_word(outcome.finish), result.queue_seconds,
                  result.prefill_seconds, result.decode_seconds));
  if (!service_.trace_) return;
  service_.trace_->write({.request = number_,
                          .protocol = protocol_name(ask_.protocol),
                          .body = exchange_->request().body,
                          .reuse = reuse_,
                          .stored = stored,
                          .answer = record_,
                          .finish = finish_word(outcome.finish),
                          .result = result});
}

}  // namespace ds4::server
