#include "kept_chats.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "common/environment.h"
#include "kvstore/engine_state.h"

namespace ds4::app {

namespace {

constexpr std::size_t kNameBytesMax = 100;

using Json = nlohmann::json;

bool is_name(std::string_view name) {
  const auto is_allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '_';
  };
  return !name.empty() && name.size() <= kNameBytesMax && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), is_allowed);
}

void check_name(std::string_view name) {
  if (is_name(name)) return;
  throw Error(
      ErrorCode::kInvalidArgument,
      fmt::format("'{}' is no name for a conversation; use letters, digits, - and _", name));
}

Error none_of(std::string_view name) {
  return {ErrorCode::kNotFound, fmt::format("there is no kept conversation '{}'", name)};
}

// What ds4 keeps of a chat besides what every session has.
std::string note_of(const KeptChat& chat) {
  return Json{{"system", chat.system},
              {"think", think_mode_name(chat.think)},
              {"turns", chat.turn_count},
              {"head", chat.head_count}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

void read_note(std::string_view note, KeptChat& chat) {
  const Json json = Json::parse(note);
  chat.system = json.at("system").get<std::string>();
  const auto think = chat::find_think_mode(json.at("think").get<std::string>());
  if (!think) throw Error(ErrorCode::kBadFormat, "unknown thinking mode");
  chat.think = *think;
  chat.turn_count = json.at("turns").get<std::uint32_t>();
  chat.head_count = json.at("head").get<std::uint32_t>();
  if (chat.head_count > chat.tokens.size())
    throw Error(ErrorCode::kBadFormat, "a head longer than the whole");
}

}  // namespace

KeptChats::KeptChats(std::filesystem::path directory, LogSink log)
    : directory_(std::move(directory)),
      log_(std::move(log)) {}

std::filesystem::path KeptChats::default_directory() {
  const char* const state = environment("XDG_STATE_HOME");
  if (state != nullptr && *state == '/') return std::filesystem::path(state) / "ds4/kv";
  const char* const home = environment("HOME");
  if (home == nullptr || *home == '\0')
    throw Error(ErrorCode::kNotFound, "neither XDG_STATE_HOME nor HOME says where to keep chats");
  return std::filesystem::path(home) / ".local/state/ds4/kv";
}

KeptChats::Opened& KeptChats::opened() {
  if (!opened_) {
    kvstore::StoreOptions options;
    options.directory = directory_;
    options.log = log_;
    opened_ = std::make_unique<Opened>(std::move(options));
  }
  return *opened_;
}

kvstore::SessionContent KeptChats::content(std::string_view name) {
  check_name(name);
  kvstore::SessionStore& sessions = opened().sessions;
  try {
    return sessions.read(kvstore::SessionStore::id_of_name(name));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kNotFound) throw;
  }
  // One that came from elsewhere has an id of its own.
  for (const kvstore::SessionInfo& info : sessions.list())
    if (info.title == name) return sessions.read(info.id);
  throw none_of(name);
}

void KeptChats::save(std::string_view name, const KeptChat& chat, Session& session) {
  check_name(name);
  session.cut_back(session.common_prefix(chat.tokens));
  Engine& engine = session.engine();
  kvstore::Store& store = opened().store;
  const kvstore::KeySpace space = store.key_space(kvstore::identity_of(engine));
  const kvstore::TokenText text = kvstore::token_text(engine.tokenizer(), chat.tokens);
  kvstore::SessionSource source(session, space.model().layout);
  const kvstore::SessionSaved saved =
      opened().sessions.save({.id = kvstore::SessionStore::id_of_name(name),
                              .title = std::string(name),
                              .space = space,
                              .tokens = chat.tokens,
                              .token_bytes = text.token_bytes,
                              .text = text.text,
                              .state_tokens = session.length(),
                              .note = note_of(chat)},
                             source);
  if (saved.state.status != kvstore::SaveStatus::kSaved)
    log(log_, LogLevel::kWarning, "its words are kept, its state is not: see above");
}

KeptChat KeptChats::read(std::string_view name) {
  kvstore::SessionContent kept = content(name);
  KeptChat chat;
  chat.model = std::move(kept.info.model);
  chat.tokens = std::move(kept.tokens);
  try {
    read_note(kept.info.note, chat);
  } catch (const std::exception& error) {
    throw Error(ErrorCode::kBadFormat,
                fmt::format("'{}' is no conversation of ds4: {}", name, error.what()));
  }
  return chat;
}

std::uint32_t KeptChats::restore(std::string_view name, Session& session) {
  kvstore::Store& store = opened().store;
  const kvstore::KeySpace space = store.key_space(kvstore::identity_of(session.engine()));
  const kvstore::SessionInfo info = content(name).info;
  const std::optional<kvstore::Hit> hit = opened().sessions.hit(info, space);
  session.clear();
  if (!hit) return 0;
  try {
    kvstore::SessionSink sink(session, space.model().layout);
    sink.finish(store.restore(space, *hit, sink).tokens);
  } catch (const Error& error) {
    log(log_, LogLevel::kWarning, fmt::format("the state of '{}' is lost: {}", name, error.what()));
  }
  return session.length();
}

void KeptChats::remove(std::string_view name) {
  check_name(name);
  kvstore::SessionStore& sessions = opened().sessions;
  try {
    // A damaged one too can be removed by its name.
    return sessions.remove(kvstore::SessionStore::id_of_name(name));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kNotFound) throw;
  }
  sessions.remove(content(name).info.id);
}

void KeptChats::strip(std::string_view name) {
  opened().sessions.strip(content(name).info.id);
}

std::vector<KeptChats::Entry> KeptChats::list() {
  std::vector<Entry> entries;
  std::error_code error;
  if (!std::filesystem::exists(directory_, error)) return entries;
  for (const kvstore::SessionInfo& info : opened().sessions.list())
    entries.push_back({info.title, info.token_count, info.updated_s, info.tail.has_value()});
  return entries;
}

}  // namespace ds4::app
