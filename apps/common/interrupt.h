#pragma once

namespace ds4::app {

// Ctrl-C as a flag: while one of these lives, SIGINT sets it and nothing else happens, so that work
// ends at its next safe point.  One at a time; confined to the main thread.
class InterruptGuard {
 public:
  // kEndProcess lets a second Ctrl-C, while the first waits to be seen, end the process.
  enum class Repeated { kIgnored, kEndProcess };
  explicit InterruptGuard(Repeated repeated);
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  ~InterruptGuard();

  static bool requested();
  static void reset();
};

}  // namespace ds4::app
