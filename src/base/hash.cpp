#include "base/hash.h"

#include <openssl/evp.h>
#include <xxhash.h>

#include "base/error.h"

namespace ds4 {

std::uint64_t xxh3(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

namespace {
EVP_MD_CTX* as_context(void* context) {
  return static_cast<EVP_MD_CTX*>(context);
}
}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new()), scratch_(EVP_MD_CTX_new()) {
  DS4_CHECK(context_ != nullptr && scratch_ != nullptr);
  DS4_CHECK(EVP_DigestInit_ex(as_context(context_), EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() {
  EVP_MD_CTX_free(as_context(context_));
  EVP_MD_CTX_free(as_context(scratch_));
}

void Sha256::update(std::span<const std::byte> bytes) {
  DS4_CHECK(EVP_DigestUpdate(as_context(context_), bytes.data(), bytes.size()) == 1);
}

Sha256Digest Sha256::finish() {
  Sha256Digest digest{};
  unsigned size = 0;
  DS4_CHECK(EVP_DigestFinal_ex(as_context(context_), digest.data(), &size) == 1);
  DS4_CHECK(size == digest.size());
  DS4_CHECK(EVP_DigestInit_ex(as_context(context_), EVP_sha256(), nullptr) == 1);
  return digest;
}

Sha256Digest Sha256::digest_so_far() const {
  Sha256Digest digest{};
  unsigned size = 0;
  DS4_CHECK(EVP_MD_CTX_copy_ex(as_context(scratch_), as_context(context_)) == 1);
  DS4_CHECK(EVP_DigestFinal_ex(as_context(scratch_), digest.data(), &size) == 1);
  DS4_CHECK(size == digest.size());
  return digest;
}

Sha256Digest sha256(std::span<const std::byte> bytes) {
  Sha256 hasher;
  hasher.update(bytes);
  return hasher.finish();
}

std::string to_hex(std::span<const std::uint8_t> bytes) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const std::uint8_t byte : bytes) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

}  // namespace ds4
