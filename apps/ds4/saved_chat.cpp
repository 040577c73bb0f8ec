#include "saved_chat.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"

namespace ds4::app {

namespace {

constexpr std::string_view kMagic = "DS4CHAT1";
constexpr std::string_view kSuffix = ".ds4chat";
constexpr std::size_t kHeaderBytes = 32;  // magic, header bytes, state bytes, checksum
constexpr std::size_t kNameBytesMax = 100;

using Json = nlohmann::json;

std::span<const std::byte> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

Json ids_json(const std::vector<TokenId>& tokens) {
  Json list = Json::array();
  for (const TokenId token : tokens)
    list.push_back(token.value());
  return list;
}

std::vector<TokenId> ids_from(const Json& list) {
  std::vector<TokenId> tokens;
  tokens.reserve(list.size());
  for (const Json& id : list)
    tokens.emplace_back(id.get<std::int32_t>());
  return tokens;
}

void put_u64(std::string& out, std::uint64_t value) {
  for (int byte = 0; byte < 8; ++byte)
    out.push_back(static_cast<char>(value >> (8 * byte)));
}

std::uint64_t read_u64(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (int byte = 7; byte >= 0; --byte)
    value = value << 8 | std::to_integer<std::uint64_t>(bytes[static_cast<std::size_t>(byte)]);
  return value;
}

SavedChat chat_from(const Json& header) {
  SavedChat chat;
  chat.model = header.at("model").get<std::string>();
  chat.system = header.at("system").get<std::string>();
  const auto think = chat::find_think_mode(header.at("think").get<std::string>());
  if (!think) throw Error(ErrorCode::kBadFormat, "unknown thinking mode");
  chat.think = *think;
  chat.turn_count = header.at("turns").get<std::uint32_t>();
  chat.head = ids_from(header.at("head"));
  chat.body = ids_from(header.at("body"));
  return chat;
}

bool is_name(std::string_view name) {
  const auto is_allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '_';
  };
  return !name.empty() && name.size() <= kNameBytesMax && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), is_allowed);
}

}  // namespace

void write_saved_chat(const std::filesystem::path& path, const SavedChat& chat) {
  const std::string header = Json{{"model", chat.model},
                                  {"system", chat.system},
                                  {"think", think_mode_name(chat.think)},
                                  {"turns", chat.turn_count},
                                  {"head", ids_json(chat.head)},
                                  {"body", ids_json(chat.body)}}
                                 .dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string front(kMagic);
  put_u64(front, header.size());
  put_u64(front, chat.state.size());
  put_u64(front, xxh3(bytes_of(header)));
  AtomicFileWriter file(path, 0600);
  file.write(front);
  file.write(header);
  file.write(chat.state);
  file.commit();
}

SavedChat read_saved_chat(const std::filesystem::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  const auto refuse = [&](std::string_view reason) -> Error {
    return {ErrorCode::kBadFormat,
            fmt::format("{} is no saved conversation: {}", path.string(), reason)};
  };
  if (bytes.size() < kHeaderBytes || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0)
    throw refuse("it does not begin like one");
  const std::uint64_t header_bytes = read_u64(bytes.subspan(8));
  const std::uint64_t state_bytes = read_u64(bytes.subspan(16));
  const std::uint64_t room = bytes.size() - kHeaderBytes;
  if (header_bytes > room || state_bytes != room - header_bytes) throw refuse("it is truncated");
  const auto header = bytes.subspan(kHeaderBytes, header_bytes);
  if (xxh3(header) != read_u64(bytes.subspan(24))) throw refuse("its checksum is wrong");
  try {
    const auto* text = reinterpret_cast<const char*>(header.data());
    SavedChat chat = chat_from(Json::parse(text, text + header.size()));
    const auto state = bytes.subspan(kHeaderBytes + header_bytes);
    chat.state.assign(state.begin(), state.end());
    return chat;
  } catch (const Json::exception& error) {
    throw refuse(error.what());
  } catch (const Error& error) {
    throw refuse(error.what());
  }
}

std::filesystem::path SavedChats::default_directory() {
  const char* const state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && *state == '/') return std::filesystem::path(state) / "ds4/chats";
  const char* const home = std::getenv("HOME");
  if (home == nullptr || *home == '\0')
    throw Error(ErrorCode::kNotFound, "neither XDG_STATE_HOME nor HOME says where to keep chats");
  return std::filesystem::path(home) / ".local/state/ds4/chats";
}

std::filesystem::path SavedChats::path_of(std::string_view name) const {
  if (!is_name(name)) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("'{}' is no name for a conversation; use letters, digits, - and _", name));
  }
  return directory_ / fmt::format("{}{}", name, kSuffix);
}

std::filesystem::path SavedChats::path_for_writing(std::string_view name) const {
  const std::filesystem::path path = path_of(name);
  std::error_code error;
  std::filesystem::create_directories(directory_, error);
  if (error || ::chmod(directory_.c_str(), 0700) != 0)
    throw_errno("cannot make the private folder", directory_.string());
  return path;
}

void SavedChats::remove(std::string_view name) const {
  const std::filesystem::path path = path_of(name);
  if (::unlink(path.c_str()) != 0) throw_errno("cannot remove", path.string());
}

std::vector<SavedChats::Entry> SavedChats::list() const {
  std::vector<Entry> entries;
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(directory_, error)) {
    if (file.path().extension() != kSuffix) continue;
    struct stat info {};
    if (::stat(file.path().c_str(), &info) != 0) continue;
    entries.push_back({file.path().stem().string(), static_cast<std::uint64_t>(info.st_size),
                       static_cast<std::int64_t>(info.st_mtime)});
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return a.modified_s != b.modified_s ? a.modified_s > b.modified_s : a.name < b.name;
  });
  return entries;
}

}  // namespace ds4::app
