#include "server/errors.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "server/json_read.h"

namespace ds4::server {

namespace {

const char* anthropic_type(int status) {
  switch (status) {
    case 400:
      return "invalid_request_error";
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

const char* openai_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 429:
      return "rate_limit_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

}  // namespace

int status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kBadFormat:
    case ErrorCode::kUnsupported:
    case ErrorCode::kContextOverflow:
      return 400;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kBusy:
      return 429;
    case ErrorCode::kCancelled:
    case ErrorCode::kOutOfMemory:
      return 503;
    case ErrorCode::kIo:
    case ErrorCode::kDevice:
    case ErrorCode::kInternal:
      return 500;
  }
  return 500;
}

Failure failure_of(const Error& error) {
  Failure failure{.status = status_of(error.code()), .message = error.what()};
  if (failure.status == 429) failure.code = "rate_limit_exceeded";
  if (failure.status == 429 || failure.status == 503) failure.retry_after_s = 5;
  // "field: problem" names the parameter.
  if (error.code() == ErrorCode::kInvalidArgument) {
    const std::size_t colon = failure.message.find(": ");
    const std::size_t space = failure.message.find(' ');
    if (colon != std::string::npos && space > colon)
      failure.param = failure.message.substr(0, colon);
  }
  return failure;
}

Failure overflow_failure(Protocol protocol, std::uint32_t prompt_tokens, std::uint32_t context) {
  Failure failure;
  failure.status = 400;
  failure.message = fmt::format(
      "the prompt has {} tokens and this server's context is {}: shorten the conversation, or "
      "start "
      "the server with a larger --ctx",
      prompt_tokens, context);
  failure.code = "context_length_exceeded";
  failure.param = protocol == Protocol::kCompletions ? "prompt"
                  : protocol == Protocol::kResponses ? "input"
                                                     : "messages";
  failure.prompt_tokens = prompt_tokens;
  failure.context_tokens = context;
  return failure;
}

std::string error_body(Protocol protocol, const Failure& failure) {
  Json error = Json::object();
  const bool anthropic = protocol == Protocol::kMessages;
  if (anthropic) error["type"] = anthropic_type(failure.status);
  error["message"] = failure.message;
  if (!anthropic) {
    error["type"] = openai_type(failure.status);
    error["param"] = failure.param.empty() ? Json(nullptr) : Json(failure.param);
    error["code"] = failure.code.empty() ? Json(nullptr) : Json(failure.code);
  }
  if (failure.context_tokens > 0) {
    error["n_prompt_tokens"] = failure.prompt_tokens;
    error["n_ctx"] = failure.context_tokens;
  }
  Json body = Json::object();
  if (anthropic) body["type"] = "error";
  body["error"] = std::move(error);
  return dump(body);
}

HttpResponse error_response(Protocol protocol, const Failure& failure) {
  HttpResponse response;
  response.status = failure.status;
  response.body = error_body(protocol, failure);
  if (failure.retry_after_s > 0)
    response.headers.emplace_back("Retry-After", std::to_string(failure.retry_after_s));
  if (failure.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

Protocol protocol_of_path(std::string_view path) {
  if (path.starts_with("/v1/messages")) return Protocol::kMessages;
  if (path.starts_with("/v1/responses")) return Protocol::kResponses;
  if (path.starts_with("/v1/completions")) return Protocol::kCompletions;
  return Protocol::kChat;
}

}  // namespace ds4::server
