#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ds4::server {

// Finds stop texts in a stream: passes on what cannot be the beginning of one and holds back the
// rest.  Pieces end between UTF-8 characters when the input's do.  Confined to one thread.
class StopScanner {
 public:
  explicit StopScanner(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Appends what may be shown.  True when a stop text was found: what stands before it was
  // appended, nothing else will be.
  bool feed(std::string_view text, std::string& shown);
  // What was held back, at the end of the stream.
  std::string finish() { return std::exchange(held_, {}); }
  // The stop text that was found.
  const std::string& found() const { return found_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  std::string found_;
};

}  // namespace ds4::server
