#include "kvstore/cipher.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/file.h"

namespace ds4::kvstore {

namespace {

struct ContextDeleter {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
  void operator()(EVP_KDF_CTX* context) const { EVP_KDF_CTX_free(context); }
  void operator()(EVP_KDF* kdf) const { EVP_KDF_free(kdf); }
};
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, ContextDeleter>;

// OpenSSL counts in int: larger inputs go in pieces.
constexpr std::size_t kPieceBytes = std::size_t{1} << 30;

const unsigned char* raw(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
unsigned char* raw(std::span<std::byte> bytes) {
  return reinterpret_cast<unsigned char*>(bytes.data());
}

void start(EVP_CIPHER_CTX* context,
           const Sha256Digest& key,
           const CipherNonce& nonce,
           int encrypt,
           std::span<const std::byte> associated) {
  DS4_CHECK(EVP_CipherInit_ex(context, EVP_aes_256_gcm(), nullptr, key.data(), nonce.data(),
                              encrypt) == 1);
  int written = 0;
  DS4_CHECK(EVP_CipherUpdate(context, nullptr, &written, raw(associated),
                             static_cast<int>(associated.size())) == 1);
}

void update_in_place(EVP_CIPHER_CTX* context, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const std::span<std::byte> piece = bytes.first(std::min(bytes.size(), kPieceBytes));
    int written = 0;
    DS4_CHECK(EVP_CipherUpdate(context, raw(piece), &written,
                               raw(std::span<const std::byte>(piece)),
                               static_cast<int>(piece.size())) == 1);
    bytes = bytes.subspan(piece.size());
  }
}

std::optional<std::uint8_t> hex_digit(char digit) {
  if (digit >= '0' && digit <= '9') return static_cast<std::uint8_t>(digit - '0');
  if (digit >= 'a' && digit <= 'f') return static_cast<std::uint8_t>(digit - 'a' + 10);
  if (digit >= 'A' && digit <= 'F') return static_cast<std::uint8_t>(digit - 'A' + 10);
  return std::nullopt;
}

std::optional<Sha256Digest> parse_key(std::string_view text) {
  Sha256Digest key{};
  if (text.size() == key.size()) {
    std::memcpy(key.data(), text.data(), key.size());
    return key;
  }
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r'))
    text.remove_suffix(1);
  if (text.size() != 2 * key.size()) return std::nullopt;
  for (std::size_t i = 0; i < key.size(); ++i) {
    const auto high = hex_digit(text[2 * i]);
    const auto low = hex_digit(text[2 * i + 1]);
    if (!high || !low) return std::nullopt;
    key[i] = static_cast<std::uint8_t>(*high << 4 | *low);
  }
  return key;
}

}  // namespace

CipherNonce section_nonce(std::uint32_t index) {
  CipherNonce nonce{};
  for (std::size_t i = 0; i < 4; ++i)
    nonce[i] = static_cast<std::uint8_t>(index >> (8 * i));
  return nonce;
}

FileCipher::~FileCipher() {
  OPENSSL_cleanse(key_.data(), key_.size());
}

void FileCipher::seal(const CipherNonce& nonce,
                      std::span<const std::byte> associated,
                      std::span<std::byte> bytes,
                      std::span<std::byte> tag) const {
  DS4_CHECK(tag.size() == kCipherTagBytes);
  const CipherContext context(EVP_CIPHER_CTX_new());
  DS4_CHECK(context != nullptr);
  start(context.get(), key_, nonce, 1, associated);
  update_in_place(context.get(), bytes);
  int written = 0;
  unsigned char unused[16];
  DS4_CHECK(EVP_CipherFinal_ex(context.get(), unused, &written) == 1 && written == 0);
  DS4_CHECK(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, kCipherTagBytes, tag.data()) ==
            1);
}

bool FileCipher::open(const CipherNonce& nonce,
                      std::span<const std::byte> associated,
                      std::span<std::byte> bytes,
                      std::span<const std::byte> tag) const {
  DS4_CHECK(tag.size() == kCipherTagBytes);
  const CipherContext context(EVP_CIPHER_CTX_new());
  DS4_CHECK(context != nullptr);
  start(context.get(), key_, nonce, 0, associated);
  update_in_place(context.get(), bytes);
  std::array<std::byte, kCipherTagBytes> expected;
  std::memcpy(expected.data(), tag.data(), tag.size());
  DS4_CHECK(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kCipherTagBytes,
                                expected.data()) == 1);
  int written = 0;
  unsigned char unused[16];
  return EVP_CipherFinal_ex(context.get(), unused, &written) == 1;
}

Cipher Cipher::from_key_file(const std::filesystem::path& path) {
  constexpr std::size_t kKeyFileBytesMax = 4096;
  const std::string text = read_text_file(path, kKeyFileBytesMax);
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0 && (info.st_mode & 077) != 0) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the key file {} can be read by others; run: chmod 600 {}",
                            path.string(), path.string()));
  }
  const std::optional<Sha256Digest> key = parse_key(text);
  if (!key) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the key file {} must hold 32 bytes or 64 hexadecimal digits; make one "
                            "with: openssl rand -hex 32",
                            path.string()));
  }
  return Cipher(*key);
}

Cipher::~Cipher() {
  OPENSSL_cleanse(key_.data(), key_.size());
}

Sha256Digest Cipher::derive(std::string_view purpose, std::span<const std::uint8_t> salt) const {
  const std::unique_ptr<EVP_KDF, ContextDeleter> kdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr));
  DS4_CHECK(kdf != nullptr);
  const std::unique_ptr<EVP_KDF_CTX, ContextDeleter> context(EVP_KDF_CTX_new(kdf.get()));
  DS4_CHECK(context != nullptr);
  char digest[] = "SHA256";
  Sha256Digest key = key_;
  std::string info(purpose);
  std::vector<std::uint8_t> salt_copy(salt.begin(), salt.end());
  if (salt_copy.empty()) salt_copy.resize(key.size());  // HKDF's own default
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key.data(), key.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info.data(), info.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt_copy.data(), salt_copy.size()),
      OSSL_PARAM_construct_end()};
  Sha256Digest derived{};
  DS4_CHECK(EVP_KDF_derive(context.get(), derived.data(), derived.size(), parameters) == 1);
  OPENSSL_cleanse(key.data(), key.size());
  return derived;
}

FileCipher Cipher::file_cipher(const CipherSalt& salt) const {
  return FileCipher(derive("ds4 kv file", salt));
}

Sha256Digest Cipher::prefix_salt() const {
  return derive("ds4 kv prefix salt", {});
}

std::uint64_t Cipher::key_id() const {
  const Sha256Digest digest = derive("ds4 kv key id", {});
  std::uint64_t id = 0;
  for (std::size_t i = 0; i < 8; ++i)
    id |= std::uint64_t{digest[i]} << (8 * i);
  return id == 0 ? 1 : id;
}

}  // namespace ds4::kvstore
