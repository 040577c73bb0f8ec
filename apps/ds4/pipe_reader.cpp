#include <cerrno>
#include <cstddef>

#include <unistd.h>

#include "base/error.h"
#include "common/interrupt.h"
#include "line_reader.h"

namespace ds4::app {

namespace {

class PipeReader final : public LineReader {
 public:
  Line read() override {
    Line line{.kind = LineKind::kText, .text = {}};
    for (;;) {
      const std::size_t end = buffer_.find('\n');
      if (end != std::string::npos) {
        line.text += buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        if (line.text.empty() || line.text.back() != '\\') return line;
        line.text.back() = '\n';
        continue;
      }
      switch (fill()) {
        case Filled::kMore:
          break;
        case Filled::kInterrupted:
          return {.kind = LineKind::kInterrupt, .text = {}};
        case Filled::kEnd:
          line.text += buffer_;
          buffer_.clear();
          if (line.text.empty()) line.kind = LineKind::kEnd;
          return line;
      }
    }
  }

 private:
  enum class Filled { kMore, kInterrupted, kEnd };

  Filled fill() {
    char block[4096];
    const ssize_t count = ::read(STDIN_FILENO, block, sizeof block);
    if (count > 0) {
      buffer_.append(block, static_cast<std::size_t>(count));
      return Filled::kMore;
    }
    if (count == 0) return Filled::kEnd;
    if (errno != EINTR) throw_errno("cannot read", "standard input");
    return InterruptGuard::requested() ? Filled::kInterrupted : Filled::kMore;
  }

  std::string buffer_;  // read and not yet handed out
};

}  // namespace

std::unique_ptr<LineReader> make_pipe_reader() {
  return std::make_unique<PipeReader>();
}

}  // namespace ds4::app
