// ds4-server: the OpenAI and Anthropic protocols over one local model.
#include <atomic>
#include <csignal>
#include <thread>

#include <fmt/format.h>
#include <unistd.h>

#include "base/error.h"
#include "common/fence.h"
#include "common/instance_lock.h"
#include "common/output.h"
#include "common/terminal.h"
#include "options.h"

namespace ds4::app {
namespace {

// How long answers about a lost device may take to reach their clients.
constexpr std::chrono::seconds kFarewell{1};

// SIGINT and SIGTERM, taken by whoever waits for them; every thread started later inherits the
// mask.
sigset_t block_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  return signals;
}

// Waits a moment for a signal.
bool signal_came(const sigset_t& signals) {
  const timespec moment{.tv_sec = 0, .tv_nsec = 100'000'000};
  return sigtimedwait(&signals, nullptr, &moment) > 0;
}

// Until the first signal; then drains, and a second one ends the process at once.
int serve(server::Server& server,
          const ServerArguments& arguments,
          const sigset_t& signals,
          const std::atomic<bool>& device_lost) {
  while (!signal_came(signals)) {
    if (!device_lost) continue;
    std::this_thread::sleep_for(kFarewell);
    write_note("ds4-server: the device failed; exiting so that it can be started anew\n");
    ::_exit(kExitDeviceLost);
  }
  write_note("ds4-server: draining\n");
  std::atomic<bool> done{false};
  std::jthread drain([&] {
    server.drain(std::chrono::steady_clock::now() + std::chrono::seconds(arguments.drain_s));
    done = true;
  });
  while (!done)
    if (signal_came(signals)) ::_exit(kExitSecondSignal);
  return 0;
}

int run_server(ServerArguments arguments, const sigset_t& signals, const Terminal& notes) {
  arguments.open.log =
      log_to_standard_error(notes, arguments.verbose ? Verbosity::kVerbose : Verbosity::kNormal);
  if (arguments.open.model.empty()) arguments.open.model = default_model_path();
  if (arguments.plan) {
    write_out(plan_memory(arguments.open).text());
    return 0;
  }
  if (!arguments.key_file.empty())
    arguments.server.service.access.keys = server::read_api_keys(arguments.key_file);
  const InstanceLock lock(InstanceLock::default_path());
  const auto engine = open_engine(arguments.open);
  engine->throttle().set_percent(arguments.power_percent);
  std::atomic<bool> device_lost{false};
  server::ServerOptions& options = arguments.server;
  options.scheduler.context =
      arguments.open.context == 0 ? default_context(engine->config()) : arguments.open.context;
  options.scheduler.log = arguments.open.log;
  options.scheduler.on_device_failure = [&](const std::string&) { device_lost = true; };
  options.service.log = arguments.open.log;
  options.http.log = arguments.open.log;
  const bool secure = !options.http.tls_certificate.empty();
  server::Server server(*engine, options);
  for (const std::string& address : server.addresses()) {
    write_note(fmt::format("ds4-server: {} on {}://{}, {} conversations of {} tokens\n",
                           options.service.model_name, secure ? "https" : "http", address,
                           options.scheduler.slot_count, options.scheduler.context));
  }
  return serve(server, arguments, signals, device_lost);
}

int run(int argc, char** argv, const Terminal& notes) {
  ParsedArguments parsed = parse_arguments(argc, argv);
  if (!parsed.arguments) {
    if (parsed.exit_code == 0)
      write_out(parsed.text);
    else
      write_note(parsed.text);
    return parsed.exit_code;
  }
  const std::filesystem::path directory = parsed.arguments->directory;
  if (!directory.empty() && ::chdir(directory.c_str()) != 0)
    throw_errno("cannot go to", directory.string());
  return run_server(std::move(*parsed.arguments), block_signals(), notes);
}

}  // namespace
}  // namespace ds4::app

int main(int argc, char** argv) {
  using namespace ds4::app;
  return run_fenced("ds4-server", ds4::ErrorCode::kBusy,
                    [&] { return run(argc, argv, Terminal::standard_error()); });
}
