#include "server/write_common.h"

#include <nlohmann/json.hpp>

#include "base/utf8.h"

namespace ds4::server {

namespace {

Json alternative_json(const TokenAlternative& token) {
  Json bytes = Json::array();
  for (const char byte : token.bytes)
    bytes.push_back(static_cast<unsigned char>(byte));
  return {{"token", to_valid_utf8(token.bytes)}, {"logprob", token.logprob}, {"bytes", bytes}};
}

}  // namespace

Json token_json(const TokenInfo& token) {
  Json json = alternative_json(token.chosen);
  Json top = Json::array();
  for (const TokenAlternative& other : token.top)
    top.push_back(alternative_json(other));
  json["top_logprobs"] = std::move(top);
  return json;
}

bool is_failure(const Outcome& outcome) {
  return outcome.finish == Finish::kError || outcome.finish == Finish::kCancelled;
}

Error failure_of_outcome(const Outcome& outcome) {
  return Error(outcome.finish == Finish::kCancelled ? ErrorCode::kCancelled : outcome.error,
               outcome.message.empty() ? "the answer was cancelled" : outcome.message);
}

}  // namespace ds4::server
