// The sessions of include/ds4.h.
#include <algorithm>
#include <stop_token>
#include <vector>

#include <fmt/format.h>

#include "base/file.h"
#include "capi/handles.h"

using ds4::capi::fenced;
using ds4::capi::require;

namespace {

ds4_session_options default_session_options() {
  const ds4::SessionOptions defaults;
  ds4_session_options options{};
  options.size = sizeof options;
  options.checkpoint_interval = defaults.checkpoint_interval;
  options.checkpoint_count = defaults.checkpoint_count;
  options.seed = 1;
  return options;
}

ds4_sampling default_sampling() {
  const ds4::sample::SamplingOptions defaults;
  return {sizeof(ds4_sampling), defaults.temperature, defaults.top_k, defaults.top_p,
          defaults.min_p};
}

// A token of the caller's, checked before it can meet an assertion.
ds4::TokenId checked_token(const ds4_session& session, ds4_token token) {
  const std::size_t vocab = session.session.logits().size();
  if (token < 0 || static_cast<std::size_t>(token) >= vocab) {
    throw ds4::Error(ds4::ErrorCode::kInvalidArgument,
                     fmt::format("token {} is outside the vocabulary of {}", token, vocab));
  }
  return ds4::TokenId{token};
}

void require_logits(const ds4_session& session) {
  if (!session.session.has_logits()) {
    throw ds4::Error(ds4::ErrorCode::kInvalidArgument,
                     "the session has no logits: call ds4_session_sync first");
  }
}

}  // namespace

void ds4_session_options_init(ds4_session_options* options) {
  if (options != nullptr) *options = default_session_options();
}

void ds4_sampling_init(ds4_sampling* sampling) {
  if (sampling != nullptr) *sampling = default_sampling();
}

ds4_status ds4_session_create(ds4_engine* engine,
                              const ds4_session_options* options,
                              ds4_session** session) {
  return fenced([&] {
    require(engine, "engine");
    require(session, "session");
    const auto o = ds4::capi::read_options(options, default_session_options());
    const std::uint32_t context = o.context == 0 ? engine->context : o.context;
    const std::uint64_t context_max = engine->engine->config().context_max;
    if (context < 2 || context > context_max) {
      throw ds4::Error(
          ds4::ErrorCode::kInvalidArgument,
          fmt::format("a context of {} tokens; expected 2 to {}", context, context_max));
    }
    if (o.checkpoint_interval == 0 || o.checkpoint_interval % 128 != 0 || o.checkpoint_count == 0 ||
        o.seed == 0) {
      throw ds4::Error(ds4::ErrorCode::kInvalidArgument,
                       fmt::format("checkpoints at {} tokens, {} of them, seed {}; expected a "
                                   "multiple of 128 and numbers above 0",
                                   o.checkpoint_interval, o.checkpoint_count, o.seed));
    }
    *session = std::make_unique<ds4_session>(
                   *engine,
                   ds4::SessionOptions{.context = context,
                                       .checkpoint_interval = o.checkpoint_interval,
                                       .checkpoint_count = o.checkpoint_count},
                   o.seed)
                   .release();
    return DS4_OK;
  });
}

void ds4_session_free(ds4_session* session) {
  delete session;
}

ds4_status ds4_session_sync(ds4_session* session,
                            const ds4_token* tokens,
                            size_t token_count,
                            ds4_progress_fn progress,
                            void* progress_user,
                            uint32_t* reused) {
  return fenced([&] {
    require(session, "session");
    if (token_count != 0) require(tokens, "tokens");
    std::vector<ds4::TokenId> prompt;
    prompt.reserve(token_count);
    for (std::size_t i = 0; i < token_count; ++i)
      prompt.push_back(checked_token(*session, tokens[i]));
    std::stop_source stop;
    ds4::SyncOptions options;
    options.stop = stop.get_token();
    if (progress != nullptr) {
      options.progress = [&](std::uint32_t done, std::uint32_t total) {
        if (progress(progress_user, done, total) != 0) stop.request_stop();
      };
    }
    const ds4::SyncResult result = session->session.sync(prompt, options);
    if (reused != nullptr) *reused = result.reused;
    return DS4_OK;
  });
}

ds4_status ds4_session_eval(ds4_session* session, ds4_token token) {
  return fenced([&] {
    require(session, "session");
    session->session.eval(checked_token(*session, token));
    return DS4_OK;
  });
}

ds4_status ds4_session_eval_speculative(ds4_session* session,
                                        ds4_token first,
                                        uint32_t draft_count,
                                        ds4_token* appended,
                                        size_t* appended_count) {
  return fenced([&] {
    require(session, "session");
    require(appended, "appended");
    require(appended_count, "appended_count");
    ds4::Session& s = session->session;
    const auto tokens = s.eval_speculative(checked_token(*session, first), draft_count,
                                           s.engine().tokenizer().eos());
    s.fetch_logits();
    std::transform(tokens.begin(), tokens.end(), appended,
                   [](ds4::TokenId token) { return token.value(); });
    *appended_count = tokens.size();
    return DS4_OK;
  });
}

ds4_status ds4_session_sample(ds4_session* session,
                              const ds4_sampling* sampling,
                              ds4_token* token) {
  return fenced([&] {
    require(session, "session");
    require(token, "token");
    require_logits(*session);
    const ds4_sampling s = ds4::capi::read_options(sampling, default_sampling());
    const ds4::sample::SamplingOptions options{
        .temperature = s.temperature, .top_k = s.top_k, .top_p = s.top_p, .min_p = s.min_p};
    options.validate();
    *token = session->sampler.sample(session->session.logits(), options).value();
    return DS4_OK;
  });
}

const float* ds4_session_logits(const ds4_session* session, size_t* count) {
  const bool there = session != nullptr && session->session.has_logits();
  if (count != nullptr) *count = there ? session->session.logits().size() : 0;
  return there ? session->session.logits().data() : nullptr;
}

ds4_status ds4_session_top_logprobs(ds4_session* session,
                                    size_t count,
                                    ds4_token_logprob* top,
                                    size_t* top_count) {
  return fenced([&] {
    require(session, "session");
    require(top_count, "top_count");
    if (count != 0) require(top, "top");
    require_logits(*session);
    const auto found = session->sampler.top_logprobs(session->session.logits(), count);
    for (std::size_t i = 0; i < found.size(); ++i)
      top[i] = {found[i].token.value(), found[i].logit, found[i].logprob};
    *top_count = found.size();
    return DS4_OK;
  });
}

uint32_t ds4_session_length(const ds4_session* session) {
  return session == nullptr ? 0 : session->session.length();
}

uint32_t ds4_session_context(const ds4_session* session) {
  return session == nullptr ? 0 : session->session.context();
}

ds4_status ds4_session_tokens(const ds4_session* session,
                              ds4_token* tokens,
                              size_t token_capacity,
                              size_t* token_count) {
  return fenced([&] {
    require(session, "session");
    std::vector<ds4_token> values;
    values.reserve(session->session.length());
    for (const ds4::TokenId token : session->session.tokens())
      values.push_back(token.value());
    return ds4::capi::write_buffer(values.data(), values.size(), tokens, token_capacity,
                                   token_count);
  });
}

ds4_status ds4_session_rewind(ds4_session* session, uint32_t length) {
  return fenced([&] {
    require(session, "session");
    if (length > session->session.length()) {
      throw ds4::Error(ds4::ErrorCode::kInvalidArgument,
                       fmt::format("cannot rewind to {} tokens; the session has {}", length,
                                   session->session.length()));
    }
    session->session.rewind(length);
    return DS4_OK;
  });
}

ds4_status ds4_session_clear(ds4_session* session) {
  return fenced([&] {
    require(session, "session");
    session->session.clear();
    return DS4_OK;
  });
}

ds4_status ds4_session_save(const ds4_session* session, const char* path) {
  return fenced([&] {
    require(session, "session");
    require(path, "path");
    ds4::AtomicFileWriter file(path, 0600);
    file.write(session->session.export_state());
    file.commit();
    return DS4_OK;
  });
}

ds4_status ds4_session_load(ds4_session* session, const char* path) {
  return fenced([&] {
    require(session, "session");
    require(path, "path");
    const ds4::MappedFile file(path);
    session->session.import_state(file.bytes());
    return DS4_OK;
  });
}
