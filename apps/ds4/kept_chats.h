#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "chat/effort.h"
#include "engine/session.h"
#include "kvstore/session_store.h"
#include "kvstore/store.h"

namespace ds4::app {

// A conversation without its state.  Plain data.
struct KeptChat {
  std::string model;  // its name, for people
  std::string system;
  chat::ThinkMode think = chat::ThinkMode::kHigh;
  std::uint32_t turn_count = 0;
  std::uint32_t head_count = 0;  // of the tokens: BOS, effort prefix and system text
  std::vector<TokenId> tokens;
};

// A user's kept conversations by name: named sessions of a kv directory, which ds4-kv lists and
// checks and a server may share.  Confined to one thread.
class KeptChats {
 public:
  // Does not touch the disk.
  KeptChats(std::filesystem::path directory, LogSink log);

  // $XDG_STATE_HOME/ds4/kv, else ~/.local/state/ds4/kv.  Throws Error(kNotFound) when neither
  // variable says where.
  static std::filesystem::path default_directory();
  const std::filesystem::path& directory() const { return directory_; }

  // Writes what is not there yet.  `session` holds the state of all or most of the chat's tokens;
  // it is cut back to what it shares with them.  Throws Error(kInvalidArgument) for a name with
  // anything but letters, digits, dots, dashes and underscores, or that begins with a dot, and
  // Error(kIo).
  void save(std::string_view name, const KeptChat& chat, Session& session);
  // Throws Error(kNotFound | kBadFormat).
  KeptChat read(std::string_view name);
  // Fills the session with what is kept of the conversation's state and returns its length; 0 when
  // that is stripped, evicted, damaged or another model's: it is computed again then.
  std::uint32_t restore(std::string_view name, Session& session);
  // Throws Error(kNotFound) when there is none of that name.
  void remove(std::string_view name);
  void strip(std::string_view name);

  struct Entry {
    std::string name;
    std::uint64_t token_count;
    std::int64_t updated_s;  // Unix time
    bool has_state;
  };
  // Latest first; none when there is no folder.
  std::vector<Entry> list();

 private:
  struct Opened {
    explicit Opened(kvstore::StoreOptions options) : store(std::move(options)), sessions(store) {}
    kvstore::Store store;
    kvstore::SessionStore sessions;
  };

  Opened& opened();
  // The session of `name`; throws Error(kNotFound).
  kvstore::SessionContent content(std::string_view name);

  const std::filesystem::path directory_;
  const LogSink log_;
  std::unique_ptr<Opened> opened_;
};

}  // namespace ds4::app
