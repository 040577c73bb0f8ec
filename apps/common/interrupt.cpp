#include "common/interrupt.h"

#include <csignal>

namespace ds4::app {

namespace {

// A signal handler reaches nothing but globals.
volatile std::sig_atomic_t interrupt_requested = 0;  // NOLINT(*-avoid-non-const-global-variables)
volatile std::sig_atomic_t ends_process = 0;         // NOLINT(*-avoid-non-const-global-variables)

void on_interrupt(int) {
  if (interrupt_requested != 0 && ends_process != 0) {
    struct sigaction action {};
    action.sa_handler = SIG_DFL;
    ::sigaction(SIGINT, &action, nullptr);
    ::raise(SIGINT);
  }
  interrupt_requested = 1;
}

}  // namespace

InterruptGuard::InterruptGuard(Repeated repeated) {
  interrupt_requested = 0;
  ends_process = repeated == Repeated::kEndProcess ? 1 : 0;
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  // Without SA_RESTART: a wait for input or a throttle's sleep ends at once.
  ::sigaction(SIGINT, &action, nullptr);
}

InterruptGuard::~InterruptGuard() {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  ::sigaction(SIGINT, &action, nullptr);
}

bool InterruptGuard::requested() {
  return interrupt_requested != 0;
}

void InterruptGuard::reset() {
  interrupt_requested = 0;
}

}  // namespace ds4::app
