#include "kvstore/session_store.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "kvstore/store_context.h"

namespace ds4::kvstore {

namespace {

// A file is written anew when more than half of it, and this much, is of no use any more.
constexpr std::uint64_t kWasteBytesMax = std::uint64_t{64} << 10;

template <class Sequence>
std::size_t common_prefix(const Sequence& a, const Sequence& b) {
  const std::size_t shorter = std::min(a.size(), b.size());
  return static_cast<std::size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(shorter), b.begin()).first -
      a.begin());
}

std::optional<SessionRead> read_if_there(const StoreContext& context, std::string_view id) {
  try {
    return read_session(context.session_path(id), context.cipher_or_null());
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kNotFound) return std::nullopt;
    throw;
  }
}

// The same for a save: a file that is damaged from its start goes to quarantine, since all of it is
// about to be written again.
std::optional<SessionRead> read_to_extend(StoreContext& context, std::string_view id) {
  try {
    return read_if_there(context, id);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBadFormat) throw;
    context.quarantine_file(context.session_path(id), error.what());
    return std::nullopt;
  }
}

}  // namespace

// Appends to the file, or writes it anew when it is not there, damaged or mostly waste.  The caller
// holds the directory's session lock.
void SessionStore::write(const SessionRecord& record, const std::optional<SessionRead>& before) {
  StoreContext& context = store_.context();
  const std::filesystem::path path = context.session_path(record.info.id);
  const StepHook& hook = context.options.step_hook;
  if (before && before->sound_bytes < before->file_bytes) {
    // Whatever follows the last sound record is kept for who wants to look at it.
    std::error_code failure;
    std::filesystem::copy_file(
        path, context.quarantine_directory / fmt::format("{}.{}", record.info.id, random_hex(4)),
        failure);
  }
  if (before) {
    const std::uint64_t useful = 4 * (record.keep_tokens + record.new_tokens.size()) +
                                 record.keep_bytes + record.new_text.size();
    if (before->sound_bytes < 2 * useful + kWasteBytesMax)
      return append_session(path, *before, record, context.cipher_or_null(), hook);
  }
  std::vector<TokenId> tokens;
  std::string text;
  SessionRecord whole = record;
  if (before) {
    const SessionContent& content = before->content;
    tokens.assign(content.tokens.begin(),
                  content.tokens.begin() + static_cast<std::ptrdiff_t>(record.keep_tokens));
    text = content.text.substr(0, record.keep_bytes);
  }
  tokens.insert(tokens.end(), record.new_tokens.begin(), record.new_tokens.end());
  text += record.new_text;
  whole.keep_tokens = 0;
  whole.keep_bytes = 0;
  whole.new_tokens = tokens;
  whole.new_text = text;
  TemporaryFile file(context.temporary_path(), hook);
  file.write(encode_session(whole, context.cipher_or_null()));
  file.sync();
  file.publish_over(path);
  sync_directory(context.session_directory, hook);
}

SessionSaved SessionStore::save(const SessionSave& request, StateSource& source) {
  StoreContext& context = store_.context();
  context.require_writable();
  if (request.id) check_session_id(*request.id);
  if (request.note.size() > kSessionNoteBytesMax) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("a session's own {} bytes; at most {} can be kept", request.note.size(),
                            kSessionNoteBytesMax));
  }
  const std::size_t state_tokens = request.state_tokens.value_or(request.tokens.size());
  DS4_CHECK(state_tokens <= request.tokens.size());
  const auto token_bytes = request.token_bytes.first(state_tokens);
  const std::size_t state_bytes =
      std::accumulate(token_bytes.begin(), token_bytes.end(), std::size_t{0});
  const SaveRequest state{.space = request.space,
                          .tokens = request.tokens.first(state_tokens),
                          .token_bytes = token_bytes,
                          .text = std::as_bytes(std::span(request.text.substr(0, state_bytes))),
                          .role = EntryRole::kSession,
                          .extent = SaveExtent::kChunksAndTail,
                          .urgency = SaveUrgency::kAsked,
                          .prefill_ms_per_token = request.prefill_ms_per_token,
                          .replaces = std::nullopt};
  SessionSaved saved;
  saved.state = store_.save(state, source);
  const FileLock lock(context.options.directory / "session-lock");
  SessionInfo& info = saved.info;
  info.id = request.id ? *request.id : random_hex(kSessionIdDigits / 2);
  const std::optional<SessionRead> before = read_to_extend(context, info.id);
  info.note = request.note;
  info.title = request.title.substr(0, kSessionTitleBytesMax);
  info.model = request.space.model().name;
  info.name_space = request.space.context().name_space;
  info.fingerprint = request.space.context().fingerprint;
  info.layout_digest = request.space.context().layout_digest;
  info.chunk_tokens = request.space.context().chunk_tokens;
  info.updated_s = context.now_s();
  info.created_s = before ? before->content.info.created_s : info.updated_s;
  info.token_count = request.tokens.size();
  info.text_bytes = request.text.size();
  info.tail = saved.state.tail;
  SessionRecord record{.info = info,
                       .keep_tokens = 0,
                       .keep_bytes = 0,
                       .new_tokens = request.tokens,
                       .new_text = request.text};
  std::optional<EntryId> old_tail;
  if (before) {
    old_tail = before->content.info.tail;
    record.keep_tokens =
        common_prefix(std::span<const TokenId>(before->content.tokens), request.tokens);
    record.keep_bytes = common_prefix(std::string_view(before->content.text), request.text);
    record.new_tokens = request.tokens.subspan(record.keep_tokens);
    record.new_text = request.text.substr(record.keep_bytes);
  }
  write(record, before);
  {
    const std::lock_guard catalogue_lock(context.catalogue_mutex);
    if (info.tail)
      context.catalogue->set_reference(info.id, *info.tail);
    else
      context.catalogue->remove_reference(info.id);
  }
  if (old_tail && old_tail != info.tail) store_.remove_tail(*old_tail);
  return saved;
}

std::vector<SessionInfo> SessionStore::list() {
  const StoreContext& context = store_.context();
  std::vector<SessionInfo> sessions;
  std::error_code failure;
  for (const auto& file : std::filesystem::directory_iterator(context.session_directory, failure)) {
    if (file.path().extension() != ".session") continue;
    try {
      sessions.push_back(read_session(file.path(), context.cipher_or_null()).content.info);
    } catch (const Error& error) {
      context.say(LogLevel::kWarning,
                  fmt::format("kv: session {}: {}", file.path().string(), error.what()));
    }
  }
  std::sort(sessions.begin(), sessions.end(), [](const SessionInfo& a, const SessionInfo& b) {
    return a.updated_s != b.updated_s ? a.updated_s > b.updated_s : a.id < b.id;
  });
  return sessions;
}

SessionInfo SessionStore::find(std::string_view id_prefix) {
  std::vector<SessionInfo> matches;
  for (SessionInfo& info : list())
    if (info.id.starts_with(id_prefix)) matches.push_back(std::move(info));
  if (matches.empty())
    throw Error(ErrorCode::kNotFound, fmt::format("no session starts with '{}'", id_prefix));
  if (matches.size() > 1)
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("{} sessions start with '{}'; give more of the id", matches.size(), id_prefix));
  return matches.front();
}

std::string SessionStore::id_of_name(std::string_view name) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(std::string_view("ds4 session name 1"))));
  hash.update(std::as_bytes(std::span(name)));
  return to_hex(hash.finish()).substr(0, kSessionIdDigits);
}

SessionContent SessionStore::read(std::string_view id) {
  check_session_id(id);
  const StoreContext& context = store_.context();
  std::optional<SessionRead> read = read_if_there(context, id);
  if (!read) throw Error(ErrorCode::kNotFound, fmt::format("no session {}", id));
  return std::move(read->content);
}

std::optional<Hit> SessionStore::hit(const SessionInfo& info, const KeySpace& space) {
  const KeyContext& context = space.context();
  if (!info.tail || info.fingerprint != context.fingerprint ||
      info.layout_digest != context.layout_digest || info.chunk_tokens != context.chunk_tokens ||
      info.name_space != context.name_space)
    return std::nullopt;
  return store_.hit_of(*info.tail);
}

// Appends a record that changes nothing but `info`.
void SessionStore::change(std::string_view id, const SessionInfo& info, const SessionRead& before) {
  SessionRecord record{.info = info,
                       .keep_tokens = before.content.tokens.size(),
                       .keep_bytes = before.content.text.size(),
                       .new_tokens = {},
                       .new_text = {}};
  record.info.id = std::string(id);
  write(record, before);
}

void SessionStore::release_state(const SessionInfo& info) {
  if (!info.tail) return;
  {
    StoreContext& context = store_.context();
    const std::lock_guard lock(context.catalogue_mutex);
    context.catalogue->remove_reference(info.id);
  }
  store_.remove_branch(*info.tail);
}

void SessionStore::rename(std::string_view id, std::string_view title) {
  check_session_id(id);
  StoreContext& context = store_.context();
  context.require_writable();
  const FileLock lock(context.options.directory / "session-lock");
  const std::optional<SessionRead> before = read_if_there(context, id);
  if (!before) throw Error(ErrorCode::kNotFound, fmt::format("no session {}", id));
  SessionInfo info = before->content.info;
  info.title = std::string(title.substr(0, kSessionTitleBytesMax));
  change(id, info, *before);
}

void SessionStore::strip(std::string_view id) {
  check_session_id(id);
  StoreContext& context = store_.context();
  context.require_writable();
  const FileLock lock(context.options.directory / "session-lock");
  const std::optional<SessionRead> before = read_if_there(context, id);
  if (!before) throw Error(ErrorCode::kNotFound, fmt::format("no session {}", id));
  SessionInfo info = before->content.info;
  info.tail.reset();
  change(id, info, *before);
  release_state(before->content.info);
}

void SessionStore::remove(std::string_view id) {
  check_session_id(id);
  StoreContext& context = store_.context();
  context.require_writable();
  const FileLock lock(context.options.directory / "session-lock");
  std::optional<SessionRead> before;
  try {
    before = read_if_there(context, id);
  } catch (const Error& error) {
    // A damaged session can be deleted like any other.
    context.say(LogLevel::kWarning, fmt::format("kv: session {}: {}", id, error.what()));
  }
  if (!remove_file(context.session_path(id), context.options.step_hook))
    throw Error(ErrorCode::kNotFound, fmt::format("no session {}", id));
  sync_directory(context.session_directory, context.options.step_hook);
  if (before) release_state(before->content.info);
}

}  // namespace ds4::kvstore
