#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>

#include "base/hash.h"

// Encryption at rest: AES-256-GCM through OpenSSL.  Every file has a key of its own, derived from
// the master key and 16 random bytes, so that sections may be numbered for nonces.
namespace ds4::kvstore {

constexpr std::size_t kCipherTagBytes = 16;
constexpr std::size_t kCipherSaltBytes = 16;
constexpr std::size_t kCipherNonceBytes = 12;

using CipherSalt = std::array<std::uint8_t, kCipherSaltBytes>;
using CipherNonce = std::array<std::uint8_t, kCipherNonceBytes>;

// The nonce of section `index` under a file's own key.
CipherNonce section_nonce(std::uint32_t index);

// The key of one file.  Immutable.
class FileCipher {
 public:
  explicit FileCipher(const Sha256Digest& key) : key_(key) {}
  FileCipher(const FileCipher&) = default;
  FileCipher& operator=(const FileCipher&) = default;
  ~FileCipher();

  // Encrypts `bytes` in place and writes the tag to `tag` (kCipherTagBytes).  `associated` is
  // authenticated, not stored.  A nonce must never serve twice under one file key.
  void seal(const CipherNonce& nonce,
            std::span<const std::byte> associated,
            std::span<std::byte> bytes,
            std::span<std::byte> tag) const;
  // Decrypts in place.  False when the bytes, the tag, the associated bytes or the key are not the
  // ones that were sealed; `bytes` are then worthless.
  bool open(const CipherNonce& nonce,
            std::span<const std::byte> associated,
            std::span<std::byte> bytes,
            std::span<const std::byte> tag) const;

 private:
  Sha256Digest key_;
};

// The master key of a store.  Immutable; the key is wiped from memory when the object dies.
class Cipher {
 public:
  // Reads 32 raw bytes or 64 hexadecimal digits (a final newline is allowed).  Throws
  // Error(kInvalidArgument) for anything else and for a file that others may read.
  static Cipher from_key_file(const std::filesystem::path& path);
  explicit Cipher(const Sha256Digest& master_key) : key_(master_key) {}
  Cipher(const Cipher&) = default;
  Cipher& operator=(const Cipher&) = default;
  ~Cipher();

  FileCipher file_cipher(const CipherSalt& salt) const;
  // What keys of prefixes are salted with, so that a guess of a prompt cannot be confirmed from a
  // file's name.
  Sha256Digest prefix_salt() const;
  // Names the key without telling anything about it; 0 is never returned.
  std::uint64_t key_id() const;

 private:
  Sha256Digest derive(std::string_view purpose, std::span<const std::uint8_t> salt) const;

  Sha256Digest key_;
};

}  // namespace ds4::kvstore
