#pragma once
#include "server/answer_event.h"
#include "server/json_read.h"

// What the writers of several protocols share.
namespace ds4::server {

// {"token", "logprob", "bytes", "top_logprobs": [{"token", "logprob", "bytes"}]}
Json token_json(const TokenInfo& token);
// The failure that an outcome without an answer is: Finish::kError or kCancelled.
Error failure_of_outcome(const Outcome& outcome);
bool is_failure(const Outcome& outcome);

}  // namespace ds4::server
