// ds4-server: the OpenAI and Anthropic protocols over one local model.
#include <algorithm>
#include <atomic>
#include <csignal>
#include <thread>

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "common/command_line.h"
#include "common/fence.h"
#include "common/instance_lock.h"
#include "common/load_progress.h"
#include "common/output.h"
#include "common/terminal.h"
#include "options.h"

namespace ds4::app {
namespace {

// How long answers about a lost device may take to reach their clients.
constexpr std::chrono::seconds kFarewell{1};
// How often a signal or a lost device is looked for.
constexpr std::chrono::milliseconds kPollInterval{50};
// Descriptors of other things than connections: the model, the store, the trace, listeners.
constexpr rlim_t kOtherDescriptors = 256;

// Waits for SIGINT and SIGTERM on a thread of its own.  The first one asks for an orderly end once
// there is something to end in order; before that, and when it is not the first, it ends the
// process at once, whatever the other threads are at.  Made before any other thread, which all
// inherit that the signals are not theirs.
class SignalWatch {
 public:
  SignalWatch() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
  }

  void start_serving() { serving_ = true; }
  bool end_requested() const { return end_requested_; }

 private:
  void run(const std::stop_token& stop) {
    const timespec moment{.tv_sec = 0, .tv_nsec = 100'000'000};
    while (!stop.stop_requested()) {
      if (sigtimedwait(&signals_, nullptr, &moment) <= 0) continue;
      if (!serving_ || end_requested_.exchange(true)) ::_exit(kExitSecondSignal);
    }
  }

  sigset_t signals_{};
  std::atomic<bool> serving_{false};
  std::atomic<bool> end_requested_{false};
  std::jthread thread_;
};

// Until the first signal; then drains.
int serve(server::Server& server,
          kvstore::EngineStore* store,
          const ServerArguments& arguments,
          const SignalWatch& signals,
          const std::atomic<bool>& device_lost) {
  while (!signals.end_requested()) {
    std::this_thread::sleep_for(kPollInterval);
    if (!device_lost) continue;
    std::this_thread::sleep_for(kFarewell);
    write_note("ds4-server: the device failed; exiting so that it can be started anew\n");
    ::_exit(kExitDeviceLost);
  }
  write_note("ds4-server: draining\n");
  server.drain(std::chrono::steady_clock::now() + std::chrono::seconds(arguments.drain_s));
  if (store != nullptr) store->flush();
  return 0;
}

// Asks for as many descriptors as the connections may take; fewer connections where there are not
// so many.
void fit_descriptor_limit(std::size_t& connections_max) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t wanted = connections_max + kOtherDescriptors;
  if (limit.rlim_cur < wanted) {
    limit.rlim_cur = std::min(limit.rlim_max, wanted);
    ::setrlimit(RLIMIT_NOFILE, &limit);
    ::getrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur >= wanted) return;
  connections_max = limit.rlim_cur > 2 * kOtherDescriptors
                        ? static_cast<std::size_t>(limit.rlim_cur - kOtherDescriptors)
                        : static_cast<std::size_t>(limit.rlim_cur / 2);
  write_note(fmt::format(
      "ds4-server: the limit of {} open files leaves room for {} connections (ulimit -n)\n",
      limit.rlim_cur, connections_max));
}

int run_server(ServerArguments arguments, SignalWatch& signals, const Terminal& notes) {
  arguments.open.log =
      log_to_standard_error(notes, arguments.verbose ? Verbosity::kVerbose : Verbosity::kNormal);
  arguments.open.load_progress = show_loading(notes);
  if (arguments.open.model.empty()) arguments.open.model = default_model_path();
  if (arguments.plan) {
    write_out(plan_memory(arguments.open).text());
    return 0;
  }
  if (!arguments.key_file.empty())
    arguments.server.service.access.keys = server::read_api_keys(arguments.key_file);
  server::check_options(arguments.server);
  fit_descriptor_limit(arguments.server.http.connections_max);
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
  std::unique_ptr<kvstore::EngineStore> store;
  if (!arguments.kv.store.directory.empty()) {
    arguments.kv.store.log = arguments.open.log;
    store = std::make_unique<kvstore::EngineStore>(*engine, arguments.kv);
  }
  server::Server server(*engine, options, store.get());
  signals.start_serving();
  for (const std::string& address : server.addresses()) {
    write_note(fmt::format("ds4-server: {} on {}://{}, {} conversations of {} tokens\n",
                           options.service.model_name, secure ? "https" : "http", address,
                           options.scheduler.slot_count, options.scheduler.context));
  }
  return serve(server, store.get(), arguments, signals, device_lost);
}

int run(int argc, char** argv, const Terminal& notes) {
  ParsedArguments parsed = parse_arguments(argc, argv);
  if (!parsed.arguments) return end_early(parsed.text, parsed.exit_code);
  const std::filesystem::path directory = parsed.arguments->directory;
  if (!directory.empty() && ::chdir(directory.c_str()) != 0)
    throw_errno("cannot go to", directory.string());
  SignalWatch signals;
  return run_server(std::move(*parsed.arguments), signals, notes);
}

}  // namespace
}  // namespace ds4::app

int main(int argc, char** argv) {
  return ds4::app::run_fenced("ds4-server", ds4::ErrorCode::kBusy, [&] {
    return ds4::app::run(argc, argv, ds4::app::Terminal::standard_error());
  });
}
