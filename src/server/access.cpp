#include "server/access.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <sys/stat.h>

namespace ds4::server {

namespace {

constexpr std::size_t kKeyBytesMin = 16;

Sha256Digest digest_of(std::string_view text) {
  return sha256(std::as_bytes(std::span(text.data(), text.size())));
}

// "[::1]:8000" to "::1", "localhost:8000" to "localhost".
std::string host_without_port(std::string_view host) {
  if (host.starts_with('[')) {
    const std::size_t end = host.find(']');
    return end == std::string_view::npos ? std::string() : std::string(host.substr(1, end - 1));
  }
  return std::string(host.substr(0, host.find(':')));
}

bool is_address(const std::string& host) {
  unsigned char bytes[sizeof(in6_addr)];
  return inet_pton(AF_INET, host.c_str(), bytes) == 1 ||
         inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

bool needs_key(const HttpRequest& head) {
  return head.method != "OPTIONS" && !head.path.starts_with("/health");
}

}  // namespace

std::vector<ApiKey> read_api_keys(const std::filesystem::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) throw_errno("cannot read", path.string());
  if ((info.st_mode & 077) != 0) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} may be read by others: chmod 600 it", path.string()));
  }
  std::ifstream file(path);
  std::vector<ApiKey> keys;
  std::size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    std::istringstream words(line.substr(0, line.find('#')));
    std::string name;
    std::string key;
    if (!(words >> name)) continue;
    ApiKey entry;
    entry.name = name;
    const bool good = static_cast<bool>(words >> key) && key.size() >= kKeyBytesMin;
    if (!good) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{} line {}: expected \"name key\" or \"name key priority\", the key "
                              "with at least {} bytes",
                              path.string(), number, kKeyBytesMin));
    }
    words >> entry.priority;
    entry.digest = digest_of(key);
    const bool known = std::any_of(keys.begin(), keys.end(),
                                   [&](const ApiKey& other) { return other.name == name; });
    if (known) {
      throw Error(ErrorCode::kInvalidArgument, fmt::format("{} line {}: the name {} appears twice",
                                                           path.string(), number, name));
    }
    keys.push_back(std::move(entry));
  }
  if (keys.empty())
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{} holds no key", path.string()));
  return keys;
}

const ApiKey* Access::key_of(const HttpRequest& head) const {
  std::string_view shown = head.header("x-api-key");
  const std::string_view authorization = head.header("authorization");
  constexpr std::string_view kBearer = "bearer ";
  if (authorization.size() > kBearer.size() &&
      equals_without_case(authorization.substr(0, kBearer.size()), kBearer))
    shown = authorization.substr(kBearer.size());
  const Sha256Digest digest = digest_of(shown);
  const ApiKey* found = nullptr;
  // All of them are compared, whole: the time says nothing about any.
  for (const ApiKey& key : options_.keys)
    if (CRYPTO_memcmp(key.digest.data(), digest.data(), digest.size()) == 0) found = &key;
  return shown.empty() ? nullptr : found;
}

bool Access::host_is_known(std::string_view host) const {
  if (has_keys()) return true;  // a page that was rebound to us has no key to show
  const std::string name = host_without_port(host);
  if (equals_without_case(name, "localhost") || is_address(name)) return true;
  return std::any_of(options_.hosts.begin(), options_.hosts.end(),
                     [&](const std::string& known) { return equals_without_case(known, name); });
}

bool Access::origin_is_allowed(const HttpRequest& head) const {
  const std::string_view origin = head.header("origin");
  if (origin.empty()) {
    const std::string_view site = head.header("sec-fetch-site");
    return site.empty() || site == "same-origin" || site == "none";
  }
  if (std::find(options_.origins.begin(), options_.origins.end(), origin) != options_.origins.end())
    return true;
  // A page that this server itself gave.
  const std::size_t scheme = origin.find("://");
  return scheme != std::string_view::npos && origin.substr(scheme + 3) == head.header("host");
}

HeaderList Access::cors_headers(const HttpRequest& head) const {
  const std::string_view origin = head.header("origin");
  if (std::find(options_.origins.begin(), options_.origins.end(), origin) == options_.origins.end())
    return {};
  return {{"Access-Control-Allow-Origin", std::string(origin)}, {"Vary", "Origin"}};
}

std::optional<Failure> Access::check(const HttpRequest& head) const {
  if (!host_is_known(head.header("host"))) {
    return Failure{.status = 421,
                   .message =
                       "this server does not go by the name in the Host header; start it "
                       "with --allowed-host to add one"};
  }
  if (!origin_is_allowed(head)) {
    return Failure{.status = 403,
                   .message =
                       "pages of this origin may not call this server; start it with --cors "
                       "ORIGIN to allow one"};
  }
  if (has_keys() && needs_key(head) && key_of(head) == nullptr) {
    return Failure{.status = 401,
                   .message = "a valid key is needed, as Authorization: Bearer or x-api-key",
                   .code = "invalid_api_key"};
  }
  if (head.method == "POST") {
    const std::string_view type = head.header("content-type");
    const std::string_view plain = type.substr(0, std::min(type.find(';'), type.size()));
    const std::size_t end = plain.find_last_not_of(' ');
    if (!equals_without_case(plain.substr(0, end + 1), "application/json")) {
      return Failure{.status = 415, .message = "a POST needs Content-Type: application/json"};
    }
  }
  return std::nullopt;
}

}  // namespace ds4::server
