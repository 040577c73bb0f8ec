#include "server/access.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <sys/stat.h>

namespace ds4::server {

namespace {

constexpr std::size_t kKeyBytesMin = 16;
constexpr int kPriorityMax = 100;

Sha256Digest digest_of(std::string_view text) {
  return sha256(std::as_bytes(std::span(text.data(), text.size())));
}

// Up to a word that begins with #.
std::vector<std::string> words_of(const std::string& line) {
  std::istringstream text(line);
  std::vector<std::string> words;
  for (std::string word; text >> word && !word.starts_with('#');)
    words.push_back(word);
  return words;
}

bool read_priority(const std::string& text, int& priority) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), priority);
  return error == std::errc{} && end == text.data() + text.size() && priority >= -kPriorityMax &&
         priority <= kPriorityMax;
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
    const auto complain = [&](std::string_view problem) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{} line {}: {}", path.string(), number, problem));
    };
    const std::vector<std::string> words = words_of(line);
    if (words.empty()) continue;
    ApiKey entry;
    entry.name = words[0];
    if (words.size() < 2 || words.size() > 3 || words[1].size() < kKeyBytesMin ||
        (words.size() == 3 && !read_priority(words[2], entry.priority))) {
      complain(
          fmt::format("expected \"name key\" or \"name key priority\", the key with at least {} "
                      "bytes, the priority between -{} and {}",
                      kKeyBytesMin, kPriorityMax, kPriorityMax));
    }
    entry.digest = digest_of(words[1]);
    for (const ApiKey& other : keys) {
      if (other.name == entry.name) complain(fmt::format("the name {} appears twice", entry.name));
      if (other.digest == entry.digest)
        complain(fmt::format("{} and {} have the same key", other.name, entry.name));
    }
    keys.push_back(std::move(entry));
  }
  if (keys.empty())
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{} holds no key", path.string()));
  return keys;
}

Access::Access(AccessOptions options) : options_(std::move(options)) {
  for (const std::string& origin : options_.origins) {
    const std::size_t scheme = origin.find("://");
    const bool good = scheme != std::string::npos && scheme > 0 && origin.size() > scheme + 3 &&
                      origin.find_first_of("/*", scheme + 3) == std::string::npos;
    if (!good) {
      throw Error(
          ErrorCode::kInvalidArgument,
          fmt::format("--cors {}: expected an origin such as http://localhost:3000, without "
                      "a path; there is no wildcard",
                      origin));
    }
  }
  for (const std::string& host : options_.hosts) {
    if (host.empty() || host.find_first_of(":/*") != std::string::npos) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("--allowed-host {}: expected a name without port", host));
    }
  }
}

const ApiKey* Access::find_key(std::string_view shown) const {
  const Sha256Digest digest = digest_of(shown);
  const ApiKey* found = nullptr;
  // All of them are compared, whole: the time says nothing about any.
  for (const ApiKey& key : options_.keys)
    if (CRYPTO_memcmp(key.digest.data(), digest.data(), digest.size()) == 0) found = &key;
  return shown.empty() ? nullptr : found;
}

// Either header will do: some clients send a placeholder in one of them.
const ApiKey* Access::key_of(const HttpRequest& head) const {
  const std::string_view authorization = head.header("authorization");
  constexpr std::string_view kBearer = "bearer ";
  const bool bears = authorization.size() > kBearer.size() &&
                     equals_without_case(authorization.substr(0, kBearer.size()), kBearer);
  const ApiKey* by_bearer = find_key(bears ? authorization.substr(kBearer.size()) : "");
  const ApiKey* by_header = find_key(head.header("x-api-key"));
  return by_bearer != nullptr ? by_bearer : by_header;
}

bool Access::host_is_known(std::string_view host) const {
  if (has_keys()) return true;    // a page that was rebound to us has no key to show
  if (host.empty()) return true;  // HTTP/1.0, which no browser speaks
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
