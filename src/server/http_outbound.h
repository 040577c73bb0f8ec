#pragma once
#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <utility>

namespace ds4::server {

// Bytes on their way to one client, in order.  Confined to its connection's thread.
class Outbound {
 public:
  void push(std::string bytes) {
    if (bytes.empty()) return;
    unsent_ += bytes.size();
    pieces_.push_back(std::move(bytes));
  }
  // What to send next; valid until pop().
  std::string_view front() const { return std::string_view(pieces_.front()).substr(sent_); }
  // That many bytes of front() are gone.
  void pop(std::size_t bytes) {
    unsent_ -= bytes;
    sent_ += bytes;
    if (pieces_.empty() || sent_ < pieces_.front().size()) return;
    pieces_.pop_front();
    sent_ = 0;
  }
  void clear() {
    pieces_.clear();
    sent_ = 0;
    unsent_ = 0;
  }
  bool empty() const { return pieces_.empty(); }
  std::size_t unsent_bytes() const { return unsent_; }

 private:
  std::deque<std::string> pieces_;
  std::size_t sent_ = 0;  // of the first piece
  std::size_t unsent_ = 0;
};

}  // namespace ds4::server
