#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kvstore/entry_file.h"

// Moving entries between directories: a session and its chain in one file, and the change of names
// that another directory's key and namespace ask for.
namespace ds4::kvstore {

constexpr std::size_t kBundleHeaderBytes = 64;

// Where the parts of a bundle lie.
struct BundleInfo {
  std::uint64_t session_offset = 0;
  std::uint64_t session_bytes = 0;
  std::vector<std::uint64_t> entry_offsets;
  std::vector<std::uint64_t> entry_bytes;
};

// Header and table in front of a session of `session_bytes` and entries of these sizes.
std::vector<std::byte> encode_bundle_preface(std::uint64_t session_bytes,
                                             std::span<const std::uint64_t> entry_bytes);
// Bytes of header and table, from the first kBundleHeaderBytes.  Throws Error(kBadFormat |
// kUnsupported).
std::size_t bundle_preface_bytes(std::span<const std::byte> header, std::uint64_t file_bytes);
BundleInfo decode_bundle_preface(std::span<const std::byte> preface, std::uint64_t file_bytes);

// Writes a chain of entries, in order, under other names: the same tokens, text and rows in another
// key context, encrypted with another key or not at all.  Confined to one thread.
class ChainTranscoder {
 public:
  // `cipher` null: not encrypted.
  ChainTranscoder(const KeyContext& target, const Cipher* cipher);

  // The whole file of the entry as the target has it; valid until the next call.  Checks the entry
  // and that it follows the one before.  Throws Error(kBadFormat).
  std::span<const std::byte> add(const EntryReader& entry);
  // Of the entry added last.
  const EntryHeader& header() const { return header_; }
  // Everything added so far.
  const std::vector<TokenId>& tokens() const { return tokens_; }
  const std::string& text() const { return text_; }

 private:
  KeyContext target_;
  const Cipher* cipher_;
  KeyChain keys_;
  EntryId parent_;
  EntryHeader header_;
  EntryId source_parent_;
  bool first_ = true;
  std::vector<TokenId> tokens_;
  std::string text_;
  std::vector<std::byte> storage_;
};

}  // namespace ds4::kvstore
