#pragma once
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "server/errors.h"
#include "server/exchange.h"

namespace ds4::server {

// Who may ask: one line of the key file, "name key" or "name key priority".
struct ApiKey {
  std::string name;  // the namespace of what its owner leaves in caches
  Sha256Digest digest{};
  int priority = 0;
};

// Reads a key file; a word that begins with # begins a comment.  Throws Error(kInvalidArgument) for
// a malformed line, a key under 16 bytes, a name or a key used twice, and a file that others may
// read.
std::vector<ApiKey> read_api_keys(const std::filesystem::path& path);

struct AccessOptions {
  std::vector<ApiKey> keys;          // empty: anyone who reaches the port
  std::vector<std::string> hosts;    // further names of this server, without port
  std::vector<std::string> origins;  // of web pages that may call it, e.g. "http://localhost:3000"
};

// Decides by a request's head whether it may be served: keys, names, origins, content type.  What a
// web page in somebody's browser must not do is refused even without keys: a Host that is no
// address and none of this server's names (DNS rebinding), and an Origin that is not listed
// (cross-site requests).  Immutable; any thread.
class Access {
 public:
  // Throws Error(kInvalidArgument) for an origin or a host name that no request could show.
  explicit Access(AccessOptions options);

  // Nothing when it may be served.
  std::optional<Failure> check(const HttpRequest& head) const;
  // The key that the request shows, in time that does not depend on it; null when none or unknown.
  const ApiKey* key_of(const HttpRequest& head) const;
  bool has_keys() const { return !options_.keys.empty(); }
  // The headers that let the page of a listed origin read the reply; none for others.
  HeaderList cors_headers(const HttpRequest& head) const;

 private:
  bool host_is_known(std::string_view host) const;
  bool origin_is_allowed(const HttpRequest& head) const;
  const ApiKey* find_key(std::string_view shown) const;

  AccessOptions options_;
};

}  // namespace ds4::server
