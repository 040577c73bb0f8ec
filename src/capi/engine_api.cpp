// The library, engines and tokens of include/ds4.h.
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/hash.h"
#include "capi/handles.h"
#include "runtime/open.h"
#include "tokenizer/tokenizer.h"

using ds4::capi::fenced;
using ds4::capi::require;

namespace {

std::string text_or(const char* text, const char* fallback) {
  return text == nullptr ? fallback : text;
}

ds4_engine_options default_engine_options() {
  ds4_engine_options options{};
  options.size = sizeof options;
  options.session_count = 1;
  options.use_mtp = 1;
  return options;
}

ds4::LogSink log_sink(ds4_log_fn log, void* user) {
  if (log == nullptr) return {};
  return [log, user](ds4::LogLevel level, std::string_view message) {
    log(user, static_cast<ds4_log_level>(level), std::string(message).c_str());
  };
}

ds4::OpenOptions open_options(const ds4_engine_options* given) {
  require(given, "options");
  const ds4_engine_options o = ds4::capi::read_options(given, default_engine_options());
  require(o.model_path, "options.model_path");
  if (o.row_codec != DS4_ROWS_PACKED && o.row_codec != DS4_ROWS_EXACT) {
    throw ds4::Error(ds4::ErrorCode::kInvalidArgument,
                     fmt::format("options.row_codec is {}; expected DS4_ROWS_PACKED or "
                                 "DS4_ROWS_EXACT",
                                 static_cast<int>(o.row_codec)));
  }
  ds4::OpenOptions open;
  open.model = o.model_path;
  open.mtp = text_or(o.mtp_path, "");
  open.backend = text_or(o.backend, "auto");
  open.thread_count = o.thread_count;
  open.rows_max = o.prefill_chunk;
  open.context = o.context;
  open.session_count = o.session_count == 0 ? 1 : o.session_count;
  open.codec = o.row_codec == DS4_ROWS_EXACT ? ds4::RowCodec::kExact : ds4::RowCodec::kPacked;
  open.use_mtp = o.use_mtp != 0;
  open.warm_weights = o.warm_weights != 0;
  open.steering = text_or(o.steering_path, "");
  open.steering_attention_scale = o.steering_attention_scale;
  open.steering_ffn_scale = o.steering_ffn_scale;
  open.log = log_sink(o.log, o.log_user);
  return open;
}

std::vector<ds4::TokenId> token_ids(const ds4_token* tokens, std::size_t token_count) {
  if (token_count != 0) require(tokens, "tokens");
  std::vector<ds4::TokenId> ids;
  ids.reserve(token_count);
  for (std::size_t i = 0; i < token_count; ++i)
    ids.emplace_back(tokens[i]);
  return ids;
}

}  // namespace

uint32_t ds4_abi_version(void) {
  return DS4_ABI_VERSION;
}

const char* ds4_version(void) {
  return DS4_VERSION;
}

const char* ds4_status_name(ds4_status status) {
  switch (status) {
    case DS4_OK:
      return "ok";
    case DS4_INVALID_ARGUMENT:
      return "invalid_argument";
    case DS4_NOT_FOUND:
      return "not_found";
    case DS4_BAD_FORMAT:
      return "bad_format";
    case DS4_UNSUPPORTED:
      return "unsupported";
    case DS4_CONTEXT_OVERFLOW:
      return "context_overflow";
    case DS4_OUT_OF_MEMORY:
      return "out_of_memory";
    case DS4_IO:
      return "io";
    case DS4_CANCELLED:
      return "cancelled";
    case DS4_DEVICE:
      return "device";
    case DS4_BUSY:
      return "busy";
    case DS4_INTERNAL:
      return "internal";
    case DS4_BUFFER_TOO_SMALL:
      return "buffer_too_small";
  }
  return "unknown";
}

const char* ds4_last_error(void) {
  return ds4::capi::last_error();
}

void ds4_engine_options_init(ds4_engine_options* options) {
  if (options != nullptr) *options = default_engine_options();
}

ds4_status ds4_plan(const ds4_engine_options* options,
                    ds4_memory_plan* plan,
                    char* text,
                    size_t text_capacity,
                    size_t* text_bytes) {
  return fenced([&] {
    const ds4::MemoryPlan found = ds4::plan_memory(open_options(options));
    ds4_memory_plan result{};
    result.allocated_bytes = found.allocated_bytes();
    for (const ds4::MemoryItem& item : found.items)
      result.mapped_bytes += item.mapped ? item.bytes : 0;
    result.available_bytes = found.available_bytes;
    const std::string lines = found.text();
    if (text != nullptr || text_bytes != nullptr) {
      const ds4_status status =
          ds4::capi::write_buffer(lines.c_str(), lines.size() + 1, text, text_capacity, text_bytes);
      if (status != DS4_OK && text != nullptr) return status;
    }
    ds4::capi::write_struct(plan, result, "plan");
    return DS4_OK;
  });
}

ds4_status ds4_engine_open(const ds4_engine_options* options, ds4_engine** engine) {
  return fenced([&] {
    require(engine, "engine");
    const ds4::OpenOptions open = open_options(options);
    auto handle = std::make_unique<ds4_engine>();
    handle->engine = ds4::open_engine(open);
    handle->context =
        open.context == 0 ? ds4::default_context(handle->engine->config()) : open.context;
    handle->fingerprint = ds4::to_hex(handle->engine->info().fingerprint);
    *engine = handle.release();
    return DS4_OK;
  });
}

void ds4_engine_close(ds4_engine* engine) {
  delete engine;
}

ds4_status ds4_engine_get_info(const ds4_engine* engine, ds4_engine_info* info) {
  return fenced([&] {
    require(engine, "engine");
    const ds4::Engine& e = *engine->engine;
    const ds4::ExecutorInfo& executor = engine->engine->executor().info();
    ds4_engine_info result{};
    result.name = e.info().name.c_str();
    result.quantisation = e.info().quantisation.c_str();
    result.fingerprint = engine->fingerprint.c_str();
    result.backend = executor.backend.c_str();
    result.file_bytes = e.info().file_bytes;
    result.context_max = e.config().context_max;
    result.context = engine->context;
    result.vocab_size = e.config().vocab_size;
    result.layer_count = e.config().layer_count;
    result.has_mtp = executor.has_mtp ? 1 : 0;
    ds4::capi::write_struct(info, result, "info");
    return DS4_OK;
  });
}

ds4_status ds4_engine_set_power(ds4_engine* engine, int32_t percent) {
  return fenced([&] {
    require(engine, "engine");
    engine->engine->throttle().set_percent(percent);
    return DS4_OK;
  });
}

// NOLINTNEXTLINE(readability-function-size): seven parameters, as the ABI has them.
ds4_status ds4_tokenize(const ds4_engine* engine,
                        const char* text,
                        size_t text_bytes,
                        ds4_text_kind kind,
                        ds4_token* tokens,
                        size_t token_capacity,
                        size_t* token_count) {
  return fenced([&] {
    require(engine, "engine");
    if (text_bytes != 0) require(text, "text");
    const std::string_view view(text_bytes == 0 ? "" : text, text_bytes);
    const auto& tokenizer = engine->engine->tokenizer();
    const auto ids = kind == DS4_TEXT_TRUSTED ? tokenizer.encode_with_special(view)
                                              : tokenizer.encode_text(view);
    std::vector<ds4_token> values;
    values.reserve(ids.size());
    for (const ds4::TokenId id : ids)
      values.push_back(id.value());
    return ds4::capi::write_buffer(values.data(), values.size(), tokens, token_capacity,
                                   token_count);
  });
}

ds4_status ds4_detokenize(const ds4_engine* engine,
                          const ds4_token* tokens,
                          size_t token_count,
                          char* text,
                          size_t text_capacity,
                          size_t* text_bytes) {
  return fenced([&] {
    require(engine, "engine");
    const std::string bytes = engine->engine->tokenizer().decode(token_ids(tokens, token_count));
    return ds4::capi::write_buffer(bytes.data(), bytes.size(), text, text_capacity, text_bytes);
  });
}

ds4_status ds4_find_marker(const ds4_engine* engine, const char* name, ds4_token* token) {
  return fenced([&] {
    require(engine, "engine");
    require(name, "name");
    require(token, "token");
    *token = engine->engine->tokenizer().marker(name).value();
    return DS4_OK;
  });
}

ds4_token ds4_end_token(const ds4_engine* engine) {
  ds4_token token = -1;
  fenced([&] {
    require(engine, "engine");
    token = engine->engine->tokenizer().eos().value();
    return DS4_OK;
  });
  return token;
}
