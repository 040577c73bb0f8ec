#include "kvstore/session_file.h"

#include <array>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/error.h"
#include "kvstore/wire.h"

namespace ds4::kvstore {

namespace {

constexpr std::array<char, 8> kMagic = {'D', 'S', '4', 'S', 'E', 'S', 'S', '\x1a'};
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kFileHeaderBytes = 64;
constexpr std::size_t kRecordHeaderBytes = 48;
constexpr std::size_t kRecordFixedBytes = 176;
constexpr std::uint32_t kRecordMark = 0x52345344;  // "DS4R"
constexpr std::uint64_t kFileBytesMax = std::uint64_t{1} << 36;
constexpr std::uint64_t kTokensMax = std::uint64_t{1} << 31;

struct FileHeader {
  bool encrypted = false;
  CipherSalt salt{};
  std::uint64_t key_id = 0;
  std::string id;
};

[[noreturn]] void bad(std::string_view what) {
  throw Error(ErrorCode::kBadFormat, fmt::format("damaged session file: {}", what));
}

FileHeader decode_file_header(std::span<const std::byte> file) {
  if (file.size() < kFileHeaderBytes) bad("shorter than its header");
  const FieldReader in(file.first(kFileHeaderBytes));
  if (in.get<std::array<char, 8>>(0) != kMagic) bad("not a session file");
  if (in.get<std::uint64_t>(56) != xxh3(file.first(56))) bad("the header's checksum is wrong");
  if (in.get<std::uint32_t>(8) != kVersion)
    throw Error(ErrorCode::kUnsupported,
                fmt::format("session file of version {}; this program reads version {}",
                            in.get<std::uint32_t>(8), kVersion));
  FileHeader header;
  header.encrypted = in.get<std::uint32_t>(12) == 1;
  header.salt = in.get<CipherSalt>(16);
  header.key_id = in.get<std::uint64_t>(32);
  header.id = to_hex(in.get<std::array<std::uint8_t, 16>>(40));
  return header;
}

std::array<std::byte, kFileHeaderBytes> encode_file_header(const FileHeader& header) {
  std::array<std::byte, kFileHeaderBytes> bytes{};
  FieldWriter out(bytes);
  out.put(0, kMagic);
  out.put(8, kVersion);
  out.put(12, std::uint32_t{header.encrypted});
  out.put(16, header.salt);
  out.put(32, header.key_id);
  std::array<std::uint8_t, 16> id{};
  for (std::size_t i = 0; i < id.size(); ++i)
    id[i] = static_cast<std::uint8_t>(std::stoul(header.id.substr(2 * i, 2), nullptr, 16));
  out.put(40, id);
  out.put(56, xxh3(std::span<const std::byte>(bytes).first(56)));
  return bytes;
}

std::vector<std::byte> encode_payload(const SessionRecord& record) {
  const SessionInfo& info = record.info;
  DS4_CHECK(info.title.size() <= kSessionTitleBytesMax);
  DS4_CHECK(info.note.size() <= kSessionNoteBytesMax);
  const std::size_t token_bytes = record.new_tokens.size() * sizeof(TokenId);
  std::vector<std::byte> bytes(kRecordFixedBytes + info.title.size() + info.model.size() +
                               info.name_space.size() + info.note.size() + token_bytes +
                               record.new_text.size());
  FieldWriter out(bytes);
  out.put(0, info.created_s);
  out.put(8, info.updated_s);
  out.put(16, record.keep_tokens);
  out.put(24, record.keep_bytes);
  out.put(32, std::uint64_t{record.new_tokens.size()});
  out.put(40, std::uint64_t{record.new_text.size()});
  out.put(48, info.fingerprint);
  out.put(80, info.layout_digest);
  out.put(112, info.tail ? info.tail->digest : Sha256Digest{});
  out.put(144, std::uint32_t{info.tail.has_value()});
  out.put(148, info.chunk_tokens);
  out.put(152, static_cast<std::uint32_t>(info.title.size()));
  out.put(156, static_cast<std::uint32_t>(info.model.size()));
  out.put(160, static_cast<std::uint32_t>(info.name_space.size()));
  out.put(164, static_cast<std::uint32_t>(info.note.size()));
  std::size_t at = kRecordFixedBytes;
  const auto append = [&](const void* data, std::size_t byte_count) {
    if (byte_count != 0) std::memcpy(bytes.data() + at, data, byte_count);
    at += byte_count;
  };
  append(info.title.data(), info.title.size());
  append(info.model.data(), info.model.size());
  append(info.name_space.data(), info.name_space.size());
  append(info.note.data(), info.note.size());
  append(record.new_tokens.data(), token_bytes);
  append(record.new_text.data(), record.new_text.size());
  return bytes;
}

// Takes the record into `content`.  False when it does not fit what came before.
bool apply_payload(std::span<const std::byte> payload, SessionContent& content) {
  if (payload.size() < kRecordFixedBytes) return false;
  const FieldReader in(payload);
  const auto keep_tokens = in.get<std::uint64_t>(16);
  const auto keep_bytes = in.get<std::uint64_t>(24);
  const auto new_tokens = in.get<std::uint64_t>(32);
  const auto new_bytes = in.get<std::uint64_t>(40);
  const auto title_bytes = in.get<std::uint32_t>(152);
  const auto model_bytes = in.get<std::uint32_t>(156);
  const auto name_space_bytes = in.get<std::uint32_t>(160);
  const auto note_bytes = in.get<std::uint32_t>(164);
  if (keep_tokens > content.tokens.size() || keep_bytes > content.text.size()) return false;
  if (new_tokens > kTokensMax || new_bytes > kFileBytesMax || title_bytes > kSessionTitleBytesMax ||
      model_bytes > 63 || name_space_bytes > 63 || note_bytes > kSessionNoteBytesMax)
    return false;
  if (payload.size() != kRecordFixedBytes + title_bytes + model_bytes + name_space_bytes +
                            note_bytes + new_tokens * sizeof(TokenId) + new_bytes)
    return false;
  const char* text = reinterpret_cast<const char*>(payload.data()) + kRecordFixedBytes;
  SessionInfo& info = content.info;
  info.created_s = in.get<std::int64_t>(0);
  info.updated_s = in.get<std::int64_t>(8);
  info.fingerprint = in.get<Sha256Digest>(48);
  info.layout_digest = in.get<Sha256Digest>(80);
  info.tail.reset();
  if (in.get<std::uint32_t>(144) != 0) info.tail = EntryId{in.get<Sha256Digest>(112)};
  info.chunk_tokens = in.get<std::uint32_t>(148);
  info.title.assign(text, title_bytes);
  info.model.assign(text + title_bytes, model_bytes);
  info.name_space.assign(text + title_bytes + model_bytes, name_space_bytes);
  text += title_bytes + model_bytes + name_space_bytes;
  info.note.assign(text, note_bytes);
  text += note_bytes;
  content.tokens.resize(keep_tokens + new_tokens);
  if (new_tokens != 0)
    std::memcpy(content.tokens.data() + keep_tokens, text, new_tokens * sizeof(TokenId));
  content.text.resize(keep_bytes);
  content.text.append(text + new_tokens * sizeof(TokenId), new_bytes);
  info.token_count = content.tokens.size();
  info.text_bytes = content.text.size();
  return true;
}

// What encryption authenticates besides a payload: whose record it is and where it stands.
std::array<std::byte, 20> associated_bytes(const FileHeader& header, std::uint32_t index) {
  std::array<std::byte, 20> bytes{};
  FieldWriter out(bytes);
  out.put(0, header.salt);
  out.put(16, index);
  return bytes;
}

std::optional<FileCipher> file_cipher(const FileHeader& header, const Cipher* cipher) {
  if (!header.encrypted) return std::nullopt;
  if (cipher == nullptr || cipher->key_id() != header.key_id)
    throw Error(ErrorCode::kInvalidArgument,
                "the session is encrypted; give the key file that it was written with");
  return cipher->file_cipher(header.salt);
}

// Header and payload of record `index`.
std::vector<std::byte> encode_record(const FileHeader& header,
                                     const SessionRecord& record,
                                     std::uint32_t index,
                                     const Cipher* cipher) {
  std::vector<std::byte> payload = encode_payload(record);
  CipherNonce nonce{};
  if (const std::optional<FileCipher> key = file_cipher(header, cipher)) {
    // Random: a record that was cut short may have used the number of this one.
    fill_random(nonce);
    const std::size_t plain_bytes = payload.size();
    payload.resize(plain_bytes + kCipherTagBytes);
    key->seal(nonce, associated_bytes(header, index), std::span(payload).first(plain_bytes),
              std::span(payload).subspan(plain_bytes));
  }
  std::vector<std::byte> bytes(kRecordHeaderBytes + payload.size());
  FieldWriter out(bytes);
  out.put(0, kRecordMark);
  out.put(4, index);
  out.put(8, std::uint64_t{payload.size()});
  out.put(16, nonce);
  out.put(32, xxh3(payload));
  out.put(40, xxh3(std::span<const std::byte>(bytes).first(40)));
  std::memcpy(bytes.data() + kRecordHeaderBytes, payload.data(), payload.size());
  return bytes;
}

// Bytes of the record at the front of `rest`; 0 when there is no sound one.
std::size_t take_record(std::span<const std::byte> rest,
                        std::uint32_t index,
                        const FileHeader& header,
                        const std::optional<FileCipher>& key,
                        SessionContent& content) {
  if (rest.size() < kRecordHeaderBytes) return 0;
  const FieldReader in(rest.first(kRecordHeaderBytes));
  if (in.get<std::uint32_t>(0) != kRecordMark || in.get<std::uint32_t>(4) != index ||
      in.get<std::uint64_t>(40) != xxh3(rest.first(40)))
    return 0;
  const auto payload_bytes = in.get<std::uint64_t>(8);
  if (payload_bytes > rest.size() - kRecordHeaderBytes) return 0;
  const auto stored = rest.subspan(kRecordHeaderBytes, payload_bytes);
  if (xxh3(stored) != in.get<std::uint64_t>(32)) return 0;
  std::vector<std::byte> payload(stored.begin(), stored.end());
  if (key) {
    if (payload.size() < kCipherTagBytes) return 0;
    const std::size_t plain_bytes = payload.size() - kCipherTagBytes;
    if (!key->open(in.get<CipherNonce>(16), associated_bytes(header, index),
                   std::span(payload).first(plain_bytes), std::span(payload).subspan(plain_bytes)))
      return 0;
    payload.resize(plain_bytes);
  }
  return apply_payload(payload, content) ? kRecordHeaderBytes + payload_bytes : 0;
}

}  // namespace

void check_session_id(std::string_view id) {
  const bool sound = id.size() == kSessionIdDigits &&
                     id.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  if (!sound)
    throw Error(ErrorCode::kInvalidArgument, fmt::format("'{}' is not the id of a session", id));
}

SessionRead decode_session(std::span<const std::byte> file, const Cipher* cipher) {
  const FileHeader header = decode_file_header(file);
  const std::optional<FileCipher> key = file_cipher(header, cipher);
  SessionRead read;
  read.file_bytes = file.size();
  read.sound_bytes = kFileHeaderBytes;
  for (;;) {
    const std::size_t taken =
        take_record(file.subspan(read.sound_bytes), read.record_count, header, key, read.content);
    if (taken == 0) break;
    read.sound_bytes += taken;
    ++read.record_count;
  }
  if (read.record_count == 0) bad("no sound record");
  read.content.info.id = header.id;
  return read;
}

SessionRead read_session(const std::filesystem::path& path, const Cipher* cipher) {
  const InputFile file(path);
  if (file.bytes() > kFileBytesMax) bad("larger than a session can be");
  std::vector<std::byte> bytes(file.bytes());
  file.read_at(0, bytes);
  return decode_session(bytes, cipher);
}

std::vector<std::byte> encode_session(const SessionRecord& record, const Cipher* cipher) {
  check_session_id(record.info.id);
  FileHeader header;
  header.id = record.info.id;
  header.encrypted = cipher != nullptr;
  if (cipher != nullptr) {
    header.key_id = cipher->key_id();
    fill_random(header.salt);
  }
  const auto start = encode_file_header(header);
  std::vector<std::byte> bytes(start.begin(), start.end());
  const std::vector<std::byte> first = encode_record(header, record, 0, cipher);
  bytes.insert(bytes.end(), first.begin(), first.end());
  return bytes;
}

void append_session(const std::filesystem::path& path,
                    const SessionRead& read,
                    const SessionRecord& record,
                    const Cipher* cipher,
                    const StepHook& hook) {
  std::vector<std::byte> start(kFileHeaderBytes);
  InputFile(path).read_at(0, start);
  const FileHeader header = decode_file_header(start);
  const std::vector<std::byte> bytes = encode_record(header, record, read.record_count, cipher);
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
  if (descriptor < 0) throw_errno("cannot open", path.string());
  try {
    if (read.sound_bytes < read.file_bytes &&
        ::ftruncate(descriptor, static_cast<off_t>(read.sound_bytes)) != 0)
      throw_errno("cannot truncate", path.string());
    std::size_t written = 0;
    while (written < bytes.size()) {
      reach(hook, WriteStep::kWrite, path);
      const ssize_t count = ::pwrite(descriptor, bytes.data() + written, bytes.size() - written,
                                     static_cast<off_t>(read.sound_bytes + written));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw_errno("cannot write", path.string());
      written += static_cast<std::size_t>(count);
    }
    reach(hook, WriteStep::kSync, path);
    if (::fsync(descriptor) != 0) throw_errno("cannot sync", path.string());
  } catch (...) {
    ::close(descriptor);
    throw;
  }
  ::close(descriptor);
}

}  // namespace ds4::kvstore
