#include "gguf/writer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/error.h"

namespace ds4::gguf {

namespace {

constexpr std::uint32_t kVersion = 3;
constexpr std::uint64_t kAlignment = 32;  // the format's default, so no key has to say it

template <class T>
void append(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

void append_string(std::string& out, std::string_view text) {
  append(out, std::uint64_t{text.size()});
  out.append(text);
}

template <class T>
void append_array(std::string& out, ValueType type, std::span<const T> values) {
  append(out, static_cast<std::uint32_t>(type));
  append(out, std::uint64_t{values.size()});
  for (const T value : values)
    append(out, value);
}

std::uint64_t align_up(std::uint64_t offset) {
  return (offset + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

Writer::Writer(const std::filesystem::path& target) : target_(target) {
  const auto status = std::filesystem::status(target);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} is {}; name a file to write", target.string(),
                            std::filesystem::is_directory(status) ? "a directory" : "not a file"));
  }
  temporary_ = target;
  temporary_ += fmt::format(".tmp.{}", ::getpid());
  // Without a name the file vanishes with the process, however that ends; commit() names it, for
  // which it needs /proc.
  const std::filesystem::path parent = target.has_parent_path() ? target.parent_path() : ".";
  if (::access("/proc/self/fd", X_OK) == 0)
    descriptor_ = ::open(parent.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644);
  is_named_ = descriptor_ < 0;
  if (is_named_)  // this file system wants one
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw_errno("cannot create", temporary_.string());
}

Writer::~Writer() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  if (is_named_) ::unlink(temporary_.c_str());
}

void Writer::begin_value(std::string_view key, ValueType type) {
  DS4_CHECK(data_offset_ == 0);
  DS4_CHECK(!key.empty() && keys_.emplace(key).second);
  append_string(metadata_, key);
  append(metadata_, static_cast<std::uint32_t>(type));
  ++metadata_count_;
}

void Writer::set_u32(std::string_view key, std::uint32_t value) {
  begin_value(key, ValueType::kU32);
  append(metadata_, value);
}

void Writer::set_u64(std::string_view key, std::uint64_t value) {
  begin_value(key, ValueType::kU64);
  append(metadata_, value);
}

void Writer::set_f32(std::string_view key, float value) {
  begin_value(key, ValueType::kF32);
  append(metadata_, value);
}

void Writer::set_bool(std::string_view key, bool value) {
  begin_value(key, ValueType::kBool);
  append(metadata_, static_cast<std::uint8_t>(value ? 1 : 0));
}

void Writer::set_string(std::string_view key, std::string_view value) {
  begin_value(key, ValueType::kString);
  append_string(metadata_, value);
}

void Writer::set_u32_array(std::string_view key, std::span<const std::uint32_t> values) {
  begin_value(key, ValueType::kArray);
  append_array(metadata_, ValueType::kU32, values);
}

void Writer::set_i32_array(std::string_view key, std::span<const std::int32_t> values) {
  begin_value(key, ValueType::kArray);
  append_array(metadata_, ValueType::kI32, values);
}

void Writer::set_f32_array(std::string_view key, std::span<const float> values) {
  begin_value(key, ValueType::kArray);
  append_array(metadata_, ValueType::kF32, values);
}

void Writer::set_string_array(std::string_view key, std::span<const std::string> values) {
  begin_value(key, ValueType::kArray);
  append(metadata_, static_cast<std::uint32_t>(ValueType::kString));
  append(metadata_, std::uint64_t{values.size()});
  for (const std::string& value : values)
    append_string(metadata_, value);
}

void Writer::set(std::string_view key, const Value& value) {
  begin_value(key, value.type);
  metadata_.append(reinterpret_cast<const char*>(value.encoded.data()), value.encoded.size());
}

std::size_t Writer::add_tensor(std::string_view name,
                               ElementType type,
                               std::span<const std::uint64_t> shape) {
  DS4_CHECK(data_offset_ == 0);
  DS4_CHECK(!name.empty() && tensor_names_.emplace(name).second);
  DS4_CHECK(!shape.empty() && std::find(shape.begin(), shape.end(), 0U) == shape.end());
  Tensor tensor{std::string(name), type, {shape.begin(), shape.end()}, 0, data_bytes_};
  tensor.bytes = row_bytes(type, shape[0]);
  for (const std::uint64_t extent : shape.subspan(1))
    tensor.bytes *= extent;
  data_bytes_ = align_up(data_bytes_ + tensor.bytes);
  tensors_.push_back(std::move(tensor));
  return tensors_.size() - 1;
}

void Writer::begin_data() {
  DS4_CHECK(data_offset_ == 0);
  std::string head = "GGUF";
  append(head, kVersion);
  append(head, std::uint64_t{tensors_.size()});
  append(head, metadata_count_);
  head += metadata_;
  for (const Tensor& tensor : tensors_) {
    append_string(head, tensor.name);
    append(head, static_cast<std::uint32_t>(tensor.shape.size()));
    for (const std::uint64_t extent : tensor.shape)
      append(head, extent);
    append(head, static_cast<std::uint32_t>(tensor.type));
    append(head, tensor.offset);
  }
  data_offset_ = align_up(head.size());
  file_bytes_ = data_offset_ + data_bytes_;
  head.resize(data_offset_, '\0');
  reserve_file();
  write_at(0, std::as_bytes(std::span(head)));
}

void Writer::reserve_file() const {
  // Padding between tensors is never written: growing the file makes it zero.
  const auto size = static_cast<off_t>(file_bytes_);
  if (::fallocate(descriptor_, 0, 0, size) == 0) return;
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) {
    throw Error(
        ErrorCode::kIo,
        fmt::format("cannot write {}: {} bytes are needed and the disk has no room for them "
                    "({}); free space or choose another place",
                    target_.string(), file_bytes_, std::generic_category().message(errno)));
  }
  // This file system cannot reserve; a full disk then shows while writing.
  if (::ftruncate(descriptor_, size) != 0) throw_errno("cannot size", target_.string());
}

void Writer::write_at(std::uint64_t offset, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t count =
        ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_errno("cannot write", target_.string());
    offset += static_cast<std::uint64_t>(count);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

void Writer::write_tensor(std::size_t tensor,
                          std::uint64_t offset,
                          std::span<const std::byte> bytes) {
  DS4_CHECK(data_offset_ != 0 && tensor < tensors_.size());
  const Tensor& target = tensors_[tensor];
  DS4_CHECK(offset <= target.bytes && bytes.size() <= target.bytes - offset);
  write_at(data_offset_ + target.offset + offset, bytes);
  written_bytes_ += bytes.size();
}

void Writer::commit() {
  DS4_CHECK(data_offset_ != 0);
  std::uint64_t expected_bytes = 0;
  for (const Tensor& tensor : tensors_)
    expected_bytes += tensor.bytes;
  DS4_CHECK(written_bytes_ == expected_bytes);
  if (::fsync(descriptor_) != 0) throw_errno("cannot sync", target_.string());
  if (!is_named_) {
    const std::string unnamed = fmt::format("/proc/self/fd/{}", descriptor_);
    ::unlink(temporary_.c_str());  // a leftover of a process that had the same number
    if (::linkat(AT_FDCWD, unnamed.c_str(), AT_FDCWD, temporary_.c_str(), AT_SYMLINK_FOLLOW) != 0)
      throw_errno("cannot name", temporary_.string());
    is_named_ = true;
  }
  if (::rename(temporary_.c_str(), target_.c_str()) != 0)
    throw_errno("cannot rename to", target_.string());
  ::close(std::exchange(descriptor_, -1));
  const std::filesystem::path parent = target_.has_parent_path() ? target_.parent_path() : ".";
  const int directory = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return;
  ::fsync(directory);
  ::close(directory);
}

}  // namespace ds4::gguf
