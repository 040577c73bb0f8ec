#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvstore/session_file.h"
#include "kvstore/store.h"

// Conversations by name over a store: what /save, /load, /list, /switch, /del and /strip do.  A
// session's text and token ids are kept beside its state, so that one whose state was evicted,
// stripped or damaged is computed again instead of lost.
namespace ds4::kvstore {

struct SessionSave {
  std::optional<std::string> id;  // empty: a new session
  std::string title;              // at most 512 bytes are kept
  const KeySpace& space;
  std::span<const TokenId> tokens;             // [tokens]
  std::span<const std::uint32_t> token_bytes;  // [tokens] rendered bytes of each
  std::string_view text;                       // rendered bytes of all
  // The source's state is that of the first so many tokens, of all when absent; 0: none is saved.
  std::optional<std::uint64_t> state_tokens = {};
  std::string note = {};  // the application's own, kept as it is
  double prefill_ms_per_token = 1.0;
};

struct SessionSaved {
  SessionInfo info;
  SaveOutcome state;  // a status other than kSaved: the text is saved, the state is not
};

// Synchronised, as Store is; `store` must outlive it.
class SessionStore {
 public:
  explicit SessionStore(Store& store) : store_(store) {}

  // Saves the state as `source` has it, then the session.  Throws Error(kIo); the session as it was
  // saved before is then still there.
  SessionSaved save(const SessionSave& request, StateSource& source);
  // Latest first.  Files that cannot be read are left out with a line in the log.
  std::vector<SessionInfo> list();
  // By the start of an id.  Throws Error(kNotFound), or Error(kInvalidArgument) when several match.
  SessionInfo find(std::string_view id_prefix);
  // The id that save() should be given for a session which is known by its name.
  static std::string id_of_name(std::string_view name);
  SessionContent read(std::string_view id);
  // What Store::restore takes.  Empty when the state is stripped, evicted or of another key space:
  // compute it again from the session's tokens.
  std::optional<Hit> hit(const SessionInfo& info, const KeySpace& space);

  void rename(std::string_view id, std::string_view title);
  // Drops the state and keeps the text.
  void strip(std::string_view id);
  // Removes the session, its tail and the chunks that nothing else needs.
  void remove(std::string_view id);

  // Writes the session and its state to one file (0600), not encrypted.
  void export_file(std::string_view id, const std::filesystem::path& path);
  // Takes a file of export_file() in, under `name_space`; the id is kept unless it is taken.
  // Everything in it is checked, but its rows are whatever its maker put there.
  SessionInfo import_file(const std::filesystem::path& path, std::string_view name_space = "");

 private:
  void write(const SessionRecord& record, const std::optional<SessionRead>& before);
  void change(std::string_view id, const SessionInfo& info, const SessionRead& before);
  void release_state(const SessionInfo& info);

  Store& store_;
};

}  // namespace ds4::kvstore
