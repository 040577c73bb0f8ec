#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "chat/effort.h"
#include "tensor/strong.h"

namespace ds4::app {

// A conversation as a file keeps it (docs/formats/chat-session.md).  Plain data.
struct SavedChat {
  std::string model;  // its name, for people
  std::string system;
  chat::ThinkMode think = chat::ThinkMode::kHigh;
  std::uint32_t turn_count = 0;
  std::vector<TokenId> head;
  std::vector<TokenId> body;
  std::vector<std::byte> state;  // Session::export_state(); empty: read the transcript again
};

// Replaces the file as a whole, readable by its owner alone.  Throws Error(kIo).
void write_saved_chat(const std::filesystem::path& path, const SavedChat& chat);
// Throws Error(kNotFound | kIo | kBadFormat).
SavedChat read_saved_chat(const std::filesystem::path& path);

// The folder of a user's saved conversations, one file a name.  Confined to one thread.
class SavedChats {
 public:
  // Does not touch the disk.
  explicit SavedChats(std::filesystem::path directory) : directory_(std::move(directory)) {}

  // $XDG_STATE_HOME/ds4/chats, else ~/.local/state/ds4/chats.  Throws Error(kNotFound) when neither
  // variable says where.
  static std::filesystem::path default_directory();

  // The file of `name`, in a folder that exists and that others cannot read.  Throws
  // Error(kInvalidArgument) for a name with anything but letters, digits, dots, dashes and
  // underscores, or that begins with a dot.
  std::filesystem::path path_for_writing(std::string_view name) const;
  std::filesystem::path path_of(std::string_view name) const;
  // Throws Error(kNotFound) when there is none of that name.
  void remove(std::string_view name) const;

  struct Entry {
    std::string name;
    std::uint64_t bytes;
    std::int64_t modified_s;  // Unix time
  };
  // Newest first; none when there is no folder.
  std::vector<Entry> list() const;

 private:
  std::filesystem::path directory_;
};

}  // namespace ds4::app
