#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace ds4 {

// XXH3, 64 bit: checksums of what we wrote ourselves.  Not for keys an attacker may choose.
std::uint64_t xxh3(std::span<const std::byte> bytes);

using Sha256Digest = std::array<std::uint8_t, 32>;

// SHA-256 fed in pieces.  Confined to one thread.
class Sha256 {
 public:
  Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  ~Sha256();
  void update(std::span<const std::byte> bytes);
  // The digest of everything so far; the object then starts anew.
  Sha256Digest finish();
  // The digest of everything so far; more may be fed afterwards.
  Sha256Digest digest_so_far() const;

 private:
  void* context_;  // EVP_MD_CTX, kept out of the header
  void* scratch_;  // EVP_MD_CTX that digest_so_far() finishes in place of the first
};

Sha256Digest sha256(std::span<const std::byte> bytes);

// Lower-case hexadecimal.
std::string to_hex(std::span<const std::uint8_t> bytes);

}  // namespace ds4
