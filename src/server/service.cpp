#include "server/service.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "server/errors.h"
#include "server/json_read.h"
#include "server/serving.h"

namespace ds4::server {

namespace {

constexpr std::int64_t kModelCreated = 1767225600;
constexpr std::size_t kReplayBytesMax = std::size_t{512} << 20;
constexpr std::size_t kWorkerCount = 2;
constexpr std::size_t kReportsMax = 1024;  // answers that wait to be written down
constexpr std::size_t kWaitingMax = 4096;  // requests that wait to be read
constexpr std::string_view kModelPath = "/v1/models/";

struct Route {
  std::string_view path;
  std::string_view method;
};
constexpr Route kRoutes[] = {
    {"/health", "GET"},          {"/health/live", "GET"},  {"/health/ready", "GET"},
    {"/metrics", "GET"},         {"/v1/models", "GET"},    {"/v1/chat/completions", "POST"},
    {"/v1/completions", "POST"}, {"/v1/messages", "POST"}, {"/v1/messages/count_tokens", "POST"},
    {"/v1/responses", "POST"},
};

const Route* find_route(std::string_view path) {
  static constexpr Route kModel{kModelPath, "GET"};
  if (path.starts_with(kModelPath)) return &kModel;
  for (const Route& route : kRoutes)
    if (route.path == path) return &route;
  return nullptr;
}

// The path as a metric's label: nothing that a client can make up.
std::string_view route_label(std::string_view path) {
  const Route* route = find_route(path);
  return route == nullptr ? "other" : route->path;
}

}  // namespace

Service::Service(Scheduler& scheduler,
                 const tokenizer::Tokenizer& tokenizer,
                 ServiceOptions options)
    : scheduler_(scheduler),
      tokenizer_(tokenizer),
      options_(std::move(options)),
      access_(options_.access),
      metrics_(options_.model_name),
      replay_(options_.replay_ids_max, kReplayBytesMax),
      grammars_(std::make_shared<const grammar::TokenTrie>(tokenizer)),
      connections_([] { return std::size_t{0}; }),
      reporter_(1, kReportsMax, options_.log),
      workers_(kWorkerCount, kWaitingMax, options_.log) {
  if (!options_.trace.empty())
    trace_ = std::make_unique<Trace>(options_.trace, options_.trace_bytes_max);
}

Service::~Service() = default;

HttpResponse Service::protocol_error(int status, std::string_view message, std::string_view path) {
  metrics_.count_request(route_label(path), status);
  return error_response(protocol_of_path(path),
                        {.status = status, .message = std::string(message)});
}

HttpResponse Service::preflight(const HttpRequest& head) const {
  HttpResponse response{.status = 204};
  response.headers = access_.cors_headers(head);
  if (response.headers.empty()) return response;
  response.headers.emplace_back("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
  response.headers.emplace_back(
      "Access-Control-Allow-Headers",
      "authorization, content-type, x-api-key, anthropic-version, anthropic-beta, "
      "anthropic-dangerous-direct-browser-access, x-stainless-arch, x-stainless-lang, "
      "x-stainless-os, x-stainless-package-version, x-stainless-retry-count, x-stainless-runtime, "
      "x-stainless-runtime-version, x-stainless-timeout");
  response.headers.emplace_back("Access-Control-Max-Age", "600");
  // Asked by a page of the wide network about a server of this machine.
  if (!head.header("access-control-request-private-network").empty())
    response.headers.emplace_back("Access-Control-Allow-Private-Network", "true");
  return response;
}

std::optional<HttpResponse> Service::refuse(const HttpRequest& head) {
  const auto refusal = [&](const Failure& failure) {
    metrics_.count_request(route_label(head.path), failure.status);
    HttpResponse response = error_response(protocol_of_path(head.path), failure);
    for (auto& header : access_.cors_headers(head))
      response.headers.push_back(std::move(header));
    return response;
  };
  if (const auto failure = access_.check(head)) return refusal(*failure);
  if (head.method == "OPTIONS") return preflight(head);
  const Route* route = find_route(head.path);
  if (route == nullptr) return refusal({.status = 404, .message = "unknown endpoint"});
  const bool reads = route->method == "GET";
  if (route->method != head.method && !(reads && head.method == "HEAD")) {
    HttpResponse response =
        refusal({.status = 405, .message = fmt::format("{} takes {}", route->path, route->method)});
    response.headers.emplace_back("Allow", reads ? "GET, HEAD" : "POST");
    return response;
  }
  if (draining_ && head.method == "POST") {
    return refusal({.status = 503, .message = "the server is shutting down", .retry_after_s = 10});
  }
  return std::nullopt;
}

void Service::reply(Exchange& exchange, HttpResponse response) {
  metrics_.count_request(route_label(exchange.request().path), response.status);
  for (auto& header : access_.cors_headers(exchange.request()))
    response.headers.push_back(std::move(header));
  exchange.reply(std::move(response));
}

void Service::reply_json(Exchange& exchange, std::string body) {
  HttpResponse response;
  response.body = std::move(body);
  reply(exchange, std::move(response));
}

void Service::handle(const std::shared_ptr<Exchange>& exchange) {
  const std::string& path = exchange->request().path;
  fenced(exchange, [&] {
    if (path.starts_with("/health")) return health(*exchange);
    if (path.starts_with("/v1/models")) return models(*exchange);
    if (path == "/metrics") {
      HttpResponse response{.status = 200, .content_type = "text/plain; version=0.0.4"};
      response.body =
          metrics_.text(scheduler_.stats(), scheduler_.take_longest_step_seconds(), connections_());
      return reply(*exchange, std::move(response));
    }
    if (!workers_.submit([this, exchange] { prepare(exchange); }))
      throw Error(ErrorCode::kBusy, "too many requests wait to be read; try again later");
  });
}

void Service::fenced(const std::shared_ptr<Exchange>& exchange, const std::function<void()>& work) {
  Failure failure;
  try {
    return work();
  } catch (const Error& error) {
    failure = failure_of(error);
  } catch (const std::exception& error) {
    log(options_.log, LogLevel::kError,
        fmt::format("{} failed: {}", exchange->request().path, error.what()));
    failure = {.status = 500, .message = "internal error"};
  }
  exchange->post([this, exchange, failure] {
    const Protocol protocol = protocol_of_path(exchange->request().path);
    reply(*exchange, error_response(protocol, failure));
  });
}

void Service::prepare(const std::shared_ptr<Exchange>& exchange) {
  if (exchange->gone().stop_requested()) return;
  const std::string& path = exchange->request().path;
  fenced(exchange, [&] {
    if (path == "/v1/messages/count_tokens") return count_tokens(exchange);
    prepare_answer(exchange, protocol_of_path(path));
  });
}

void Service::health(Exchange& exchange) {
  const std::string& path = exchange.request().path;
  const SchedulerStats stats = scheduler_.stats();
  const bool live = !stats.device_failed &&
                    stats.seconds_in_step < std::chrono::duration<double>(options_.stuck).count();
  const bool ready = live && !draining_;
  const bool good = path == "/health/live" ? live : ready;
  HttpResponse response;
  response.status = good ? 200 : 503;
  response.body = dump({{"status", !live       ? "dead"
                                   : draining_ ? "draining"
                                               : "ready"},
                        {"live", live},
                        {"ready", ready},
                        {"active", stats.active},
                        {"queued", stats.queued},
                        {"slots", stats.slot_tokens.size()},
                        {"seconds_in_step", stats.seconds_in_step}});
  reply(exchange, std::move(response));
}

std::string Service::model_json() const {
  const std::uint32_t context = scheduler_.options().context;
  return dump({{"id", options_.model_name},
               {"object", "model"},
               {"type", "model"},
               {"created", kModelCreated},
               {"created_at", "2026-01-01T00:00:00Z"},
               {"owned_by", "ds4"},
               {"name", options_.model_name},
               {"display_name", options_.model_name},
               {"context_length", context},
               {"top_provider",
                {{"context_length", context},
                 {"max_completion_tokens", std::min(options_.answer_tokens_max, context)},
                 {"is_moderated", false}}},
               {"supported_parameters",
                {"tools", "tool_choice", "max_tokens", "temperature", "top_p", "top_k", "min_p",
                 "stop", "seed", "stream", "reasoning_effort", "logprobs", "top_logprobs",
                 "response_format", "structured_outputs"}}});
}

void Service::models(Exchange& exchange) {
  const std::string& path = exchange.request().path;
  if (path.starts_with(kModelPath)) {
    const std::string id = path.substr(kModelPath.size());
    if (id != options_.model_name && id != "deepseek-v4-flash" && id != "deepseek-chat" &&
        id != "deepseek-reasoner")
      throw Error(ErrorCode::kNotFound, fmt::format("there is no model \"{}\" here", id));
    return reply_json(exchange, model_json());
  }
  reply_json(exchange, "{\"object\":\"list\",\"data\":[" + model_json() + "],\"has_more\":false}");
}

Ask Service::read(Protocol protocol, std::string_view body) const {
  const AskDefaults defaults{
      .model = options_.model_name, .think = options_.think, .sampling = options_.sampling};
  switch (protocol) {
    case Protocol::kChat:
      return read_chat(body, defaults);
    case Protocol::kCompletions:
      return read_completions(body, defaults);
    case Protocol::kMessages:
      return read_messages(body, defaults);
    case Protocol::kResponses:
      return read_responses(body, defaults);
  }
  return {};
}

chat::RenderOptions Service::render_options(const Ask& ask) const {
  return {.think = chat::fitting_think_mode(ask.think, scheduler_.options().context),
          .ladder = options_.ladder,
          .history = chat::ReasoningHistory::kDropOld};
}

std::string Service::name_space_of(const HttpRequest& request) const {
  const ApiKey* key = access_.key_of(request);
  return key == nullptr ? std::string() : key->name;
}

void Service::prepare_answer(const std::shared_ptr<Exchange>& exchange, Protocol protocol) {
  Ask ask = read(protocol, exchange->request().body);
  if (const ApiKey* key = access_.key_of(exchange->request())) ask.priority = key->priority;
  const auto serving = std::make_shared<Serving>(*this, exchange, std::move(ask),
                                                 name_space_of(exchange->request()));
  const std::optional<Failure> failure = serving->prepare();
  exchange->post([this, exchange, serving, protocol, failure] {
    if (failure) return reply(*exchange, error_response(protocol, *failure));
    fenced(exchange, [&] { serving->start(); });
  });
}

void Service::count_tokens(const std::shared_ptr<Exchange>& exchange) {
  const AskDefaults defaults{
      .model = options_.model_name, .think = options_.think, .sampling = options_.sampling};
  Ask ask = read_messages_to_count(exchange->request().body, defaults);
  if (options_.replays_exactly) replay_.apply(name_space_of(exchange->request()), ask.messages);
  const auto tokens = tokenizer_.encode_rendered(chat::render(ask.messages, render_options(ask)));
  exchange->post([this, exchange, count = tokens.size()] {
    reply_json(*exchange, dump({{"input_tokens", count}}));
  });
}

}  // namespace ds4::server
