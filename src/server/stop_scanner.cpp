#include "server/stop_scanner.h"

#include <algorithm>

namespace ds4::server {

namespace {

// Length of the longest end of `text` that begins `stop`.
std::size_t overlap(std::string_view text, std::string_view stop) {
  for (std::size_t bytes = std::min(text.size(), stop.size() - 1); bytes > 0; --bytes)
    if (text.substr(text.size() - bytes) == stop.substr(0, bytes)) return bytes;
  return 0;
}

}  // namespace

bool StopScanner::feed(std::string_view text, std::string& shown) {
  if (stops_.empty()) {
    shown += text;
    return false;
  }
  held_ += text;
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops_) {
    const std::size_t at = held_.find(stop);
    if (at < first) {
      first = at;
      found_ = stop;
    }
  }
  if (first != std::string::npos) {
    shown += held_.substr(0, first);
    held_.clear();
    return true;
  }
  std::size_t keep = 0;
  for (const std::string& stop : stops_)
    keep = std::max(keep, overlap(held_, stop));
  shown += held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return false;
}

}  // namespace ds4::server
