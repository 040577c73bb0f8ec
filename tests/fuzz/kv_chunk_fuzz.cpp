// The store's readers of outside bytes: entry files, their aliases, session files and exports. Each
// refuses with ds4::Error or gives sizes that stay inside the bytes.  A copy of the input with
// right checksums goes in too, so that mutations get past the first check.
//
// modules: kvstore base
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "kvstore/bundle.h"
#include "kvstore/entry_file.h"
#include "kvstore/session_file.h"

namespace {

namespace kv = ds4::kvstore;

constexpr std::size_t kSessionHeaderBytes = 64;

void check(bool holds) {
  if (!holds) __builtin_trap();
}

template <class Call>
void tolerate(Call&& call) {
  try {
    call();
  } catch (const ds4::Error&) {
  }
}

// Writes XXH3 over [0, at) and [at + 8, end) to `at`.
void mend_checksum(std::vector<std::byte>& bytes, std::size_t at, std::size_t end) {
  std::vector<std::byte> covered(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(at));
  covered.insert(covered.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at + 8),
                 bytes.begin() + static_cast<std::ptrdiff_t>(end));
  const std::uint64_t sum = ds4::xxh3(covered);
  std::memcpy(bytes.data() + at, &sum, sizeof sum);
}

void read_entry(std::span<const std::byte> bytes) {
  tolerate([&] {
    const std::size_t preface = kv::entry_preface_bytes(bytes, bytes.size());
    check(preface <= bytes.size());
    const kv::EntryInfo info = kv::decode_entry(bytes.first(preface), bytes.size());
    for (std::size_t i = 0; i < info.sections.size(); ++i) {
      check(info.sections[i].offset <= bytes.size());
      check(info.stored_bytes(i) <= bytes.size() - info.sections[i].offset);
    }
    check(info.header.token_count() * 4 <= bytes.size());
  });
}

void read_aliases(std::span<const std::byte> bytes) {
  tolerate([&] {
    const std::vector<kv::AliasRecord> aliases = kv::decode_aliases(bytes);
    check(aliases.size() <= kv::kAliasesMax);
    const std::vector<std::byte> again = kv::encode_aliases(aliases);
    check(again.size() == bytes.size() &&
          std::memcmp(again.data(), bytes.data(), again.size()) == 0);
  });
}

void read_bundle(std::span<const std::byte> bytes) {
  tolerate([&] {
    const std::size_t preface = kv::bundle_preface_bytes(bytes, bytes.size());
    check(preface <= bytes.size());
    const kv::BundleInfo info = kv::decode_bundle_preface(bytes.first(preface), bytes.size());
    check(info.session_offset + info.session_bytes <= bytes.size());
    for (std::size_t i = 0; i < info.entry_offsets.size(); ++i)
      check(info.entry_offsets[i] + info.entry_bytes[i] <= bytes.size());
  });
}

void read_session(std::span<const std::byte> bytes) {
  tolerate([&] {
    const kv::SessionRead read = kv::decode_session(bytes, nullptr);
    check(read.sound_bytes <= bytes.size());
    check(read.content.info.token_count == read.content.tokens.size());
    check(read.content.tokens.size() * 4 + read.content.text.size() <= bytes.size());
  });
}

// Right checksums for a session file's header and its records, as far as they can be followed.
void mend_session(std::vector<std::byte>& bytes) {
  if (bytes.size() < kSessionHeaderBytes) return;
  mend_checksum(bytes, 56, kSessionHeaderBytes);
  std::size_t at = kSessionHeaderBytes;
  while (bytes.size() - at >= 48) {
    std::uint64_t payload = 0;
    std::memcpy(&payload, bytes.data() + at + 8, sizeof payload);
    if (payload > bytes.size() - at - 48) return;
    const std::uint64_t sum = ds4::xxh3(std::span(bytes).subspan(at + 48, payload));
    std::memcpy(bytes.data() + at + 32, &sum, sizeof sum);
    const std::uint64_t header_sum = ds4::xxh3(std::span(bytes).subspan(at, 40));
    std::memcpy(bytes.data() + at + 40, &header_sum, sizeof header_sum);
    at += 48 + payload;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  read_entry(bytes);
  read_bundle(bytes);
  read_session(bytes);
  read_aliases(bytes);
  std::vector<std::byte> mended(bytes.begin(), bytes.end());
  if (mended.size() >= kv::kEntryHeaderBytes) {
    tolerate([&] {
      mend_checksum(mended, 504, kv::entry_preface_bytes(mended, mended.size()));
      read_entry(mended);
    });
  }
  mended.assign(bytes.begin(), bytes.end());
  if (mended.size() >= kv::kBundleHeaderBytes) {
    tolerate([&] {
      mend_checksum(mended, 56, kv::bundle_preface_bytes(mended, mended.size()));
      read_bundle(mended);
    });
  }
  mended.assign(bytes.begin(), bytes.end());
  mend_session(mended);
  read_session(mended);
  return 0;
}
