#include "options.h"

#include <utility>

#include <CLI/CLI.hpp>

#include "common/command_line.h"

namespace ds4::app {

namespace {

struct Switches {
  bool cpu = false, cuda = false;
  bool no_think = false, think_max = false;
  bool no_replay = false;
  std::string release = "april";
  std::uint64_t think_budget = 0;
};

void add_model_flags(CLI::App& app, ServerArguments& a, Switches& s) {
  const char* const group = "Model";
  OpenOptions& open = a.open;
  app.add_option("-m,--model", open.model,
                 "Model file; default: ds4flash.gguf here, else the small model that comes along")
      ->group(group);
  app.add_option("-c,--ctx", open.context, "Context of each conversation in tokens")
      ->check(CLI::Range(2U, UINT32_MAX))
      ->group(group);
  app.add_option("-t,--threads", open.thread_count, "Threads; default: one a physical core")
      ->check(CLI::Range(1U, 4096U))
      ->group(group);
  auto* backend = app.add_option("--backend", open.backend, "auto, cpu, or another of this build")
                      ->group(group);
  auto* cpu = app.add_flag("--cpu", s.cpu, "Same as --backend cpu")->group(group);
  auto* cuda = app.add_flag("--cuda", s.cuda, "Same as --backend cuda")->group(group);
  backend->excludes(cpu)->excludes(cuda);
  cpu->excludes(cuda);
  app.add_option("--prefill-chunk", open.rows_max,
                 "Most tokens of one step; default: the backend's")
      ->check(CLI::Range(1U, 65536U))
      ->group(group);
  app.add_flag("--warm-weights", open.warm_weights, "Read all weights before serving")
      ->group(group);
  app.add_flag(
         "--quality", open.quality,
         "Read prompts by the kernels of decoding, a few tokens at a time: slower, and free of "
         "the f16 inputs of large batches (cuda); on the cpu all batches are that exact")
      ->group(group);
  app.add_option("--power", a.power_percent, "Share of the time that the machine works")
      ->check(CLI::Range(1, 100))
      ->capture_default_str()
      ->group(group);
  auto* steering = app.add_option("--dir-steering-file", open.steering,
                                  "Directions: little-endian f32 [layers, width]")
                       ->group(group);
  app.add_option("--dir-steering-ffn", open.steering_ffn_scale, "Scale at FFN outputs")
      ->check(CLI::Range(-100.0F, 100.0F))
      ->needs(steering)
      ->group(group);
  app.add_option("--dir-steering-attn", open.steering_attention_scale, "Scale at attention outputs")
      ->check(CLI::Range(-100.0F, 100.0F))
      ->needs(steering)
      ->group(group);
}

void add_answer_flags(CLI::App& app, ServerArguments& a, Switches& s) {
  const char* const group = "Answers";
  server::ServiceOptions& service = a.server.service;
  app.add_option("-n,--tokens", service.answer_tokens_max, "Most tokens of an answer")
      ->check(CLI::Range(1U, UINT32_MAX))
      ->capture_default_str()
      ->group(group);
  app.add_option("--model-name", service.model_name, "The name that clients see")
      ->capture_default_str()
      ->group(group);
  auto* no_think =
      app.add_flag("--nothink", s.no_think, "No reasoning unless asked for")->group(group);
  app.add_flag("--think-max", s.think_max, "Reason as long as it takes unless asked otherwise")
      ->excludes(no_think)
      ->group(group);
  app.add_option("--effort-ladder", s.release,
                 "Which release's effort texts the model knows: april or 0731")
      ->check(CLI::IsMember({"april", "0731"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--think-budget", s.think_budget, "Most tokens of reasoning; 0: no limit")
      ->check(CLI::Range(std::uint64_t{0}, std::uint64_t{1} << 30))
      ->group(group);
  app.add_option("--think-budget-message", service.think_budget_text,
                 "Said for the model before its reasoning is closed")
      ->group(group);
  app.add_flag("--disable-exact-dsml-tool-replay", s.no_replay,
               "Write earlier tool calls anew instead of as the model wrote them")
      ->group(group);
  app.add_option("--tool-memory-max-ids", service.replay_ids_max, "Tool calls remembered")
      ->capture_default_str()
      ->group(group);
}

void add_capacity_flags(CLI::App& app, ServerArguments& a) {
  const char* const group = "Capacity";
  SchedulerOptions& scheduler = a.server.scheduler;
  app.add_option("--sessions,--batched-session", scheduler.slot_count,
                 "Conversations kept in memory, and answers made at once")
      ->check(CLI::Range(1U, 1024U))
      ->capture_default_str()
      ->group(group);
  app.add_option("--max-queue", scheduler.queue_max, "Requests that may wait; 429 beyond")
      ->check(CLI::Range(1U, 1U << 20))
      ->capture_default_str()
      ->group(group);
  app.add_option("--max-connections", a.server.http.connections_max, "Open connections")
      ->check(CLI::Range(1U, 1U << 20))
      ->capture_default_str()
      ->group(group);
}

void add_limit_flags(CLI::App& app, ServerArguments& a) {
  const char* const group = "Capacity";
  app.add_option_function<std::size_t>(
         "--max-body-mb",
         [&http = a.server.http](std::size_t mebibytes) {
           http.body_bytes_max = mebibytes << 20;
           http.all_bodies_bytes_max = std::max(http.all_bodies_bytes_max, 2 * http.body_bytes_max);
         },
         "Most MiB of a request's body; default 64")
      ->check(CLI::Range(1, 1024))
      ->group(group);
  app.add_option_function<std::uint32_t>(
         "--stuck-seconds",
         [&a](std::uint32_t seconds) { a.server.service.stuck = std::chrono::seconds(seconds); },
         "A batch that runs longer makes /health/live say 503; default 600")
      ->check(CLI::Range(1, 86400))
      ->group(group);
}

void add_disk_flags(CLI::App& app, ServerArguments& a) {
  const char* const group = "Conversations on disk";
  kvstore::EngineStoreOptions& kv = a.kv;
  auto* directory =
      app.add_option("--kv-disk-dir", kv.store.directory,
                     "Keep conversations here, so that they outlive memory and restarts")
          ->group(group);
  const auto add = [&](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->needs(directory)->capture_default_str()->group(group);
  };
  add("--kv-disk-space-mb", a.kv_space_mb, "Most megabytes there; the least useful go first")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 40));
  add("--kv-disk-write-mb-per-day", a.kv_written_mb_per_day,
      "Most megabytes written there a day; 0: no limit");
  add("--kv-key-file", kv.store.key_file, "Encrypt with this key (32 bytes; the file is private)");
  add("--kv-cache-min-tokens", kv.tokens_min, "Shorter conversations are not kept")
      ->check(CLI::Range(1U, 1U << 30));
  add("--kv-cache-cold-max-tokens", kv.cold_tokens_max,
      "Longest beginning kept when it was read; 0: none is");
  add("--kv-cache-continued-interval-tokens", kv.continued_interval,
      "A growing conversation is kept every so many tokens, a multiple of 8192; 0: not before it "
      "leaves memory")
      ->check(CLI::Range(0U, 1U << 30));
}

void add_network_flags(CLI::App& app, ServerArguments& a) {
  const char* const group = "Network and safety";
  server::ServerOptions& server = a.server;
  app.add_option("--host", server.http.hosts,
                 "Address or name to listen on, IPv4 or IPv6; repeatable")
      ->capture_default_str()
      ->group(group);
  app.add_option("--port", server.http.port, "Port; 0 takes one that is free")
      ->capture_default_str()
      ->group(group);
  app.add_option("--api-key-file", a.key_file,
                 "Lines of \"name key [priority]\"; the file must be private")
      ->group(group);
  app.add_flag("--insecure-no-auth", server.insecure_no_auth,
               "Serve everyone on an address that others can reach")
      ->group(group);
  auto* certificate =
      app.add_option("--tls-cert", server.http.tls_certificate, "PEM certificate chain")
          ->group(group);
  app.add_option("--tls-key", server.http.tls_key, "PEM key")->needs(certificate)->group(group);
  app.add_option("--cors", server.service.access.origins,
                 "Origin of web pages that may call, e.g. http://localhost:3000; repeatable")
      ->group(group);
  app.add_option("--allowed-host", server.service.access.hosts,
                 "Another name of this server in Host headers; repeatable")
      ->group(group);
}

void add_other_flags(CLI::App& app, ServerArguments& a) {
  app.add_option("--trace", a.server.service.trace,
                 "Append every request and answer to this private file");
  app.add_option("--chdir", a.directory, "Go to this directory first");
  app.add_option("--drain-seconds", a.drain_s, "Time for answers to end after SIGTERM")
      ->capture_default_str();
  app.add_flag("--plan", a.plan, "Print what memory loading would take, and exit");
  app.add_flag("--verbose", a.verbose, "Log every request");
}

void settle(ServerArguments& a, const Switches& s) {
  if (s.cpu) a.open.backend = "cpu";
  if (s.cuda) a.open.backend = "cuda";
  server::ServiceOptions& service = a.server.service;
  if (s.no_think) service.think = chat::ThinkMode::kNone;
  if (s.think_max) service.think = chat::ThinkMode::kMax;
  if (s.release == "0731") service.ladder = chat::EffortLadder::k0731;
  if (s.think_budget > 0) service.think_tokens_max = static_cast<std::uint32_t>(s.think_budget);
  service.replays_exactly = !s.no_replay;
  a.kv.store.bytes_max = a.kv_space_mb << 20;
  a.kv.store.bytes_written_per_day_max = a.kv_written_mb_per_day << 20;
  const std::uint32_t stride = a.kv.store.chunk_tokens * a.kv.store.state_stride_chunks;
  a.kv.continued_interval = (a.kv.continued_interval + stride - 1) / stride * stride;
  a.open.session_count = a.server.scheduler.slot_count;
}

}  // namespace

ParsedArguments parse_arguments(int argc, char** argv) {
  ServerArguments arguments;
  Switches switches;
  arguments.open.context = 0;
  CLI::App app("ds4-server: OpenAI and Anthropic protocols over one local model", "ds4-server");
  add_model_flags(app, arguments, switches);
  add_answer_flags(app, arguments, switches);
  add_capacity_flags(app, arguments);
  add_limit_flags(app, arguments);
  add_disk_flags(app, arguments);
  add_network_flags(app, arguments);
  add_other_flags(app, arguments);
  ParsedArguments parsed;
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    EarlyEnd end = early_end(app, error);
    return {.arguments = {}, .exit_code = end.exit_code, .text = std::move(end.text)};
  }
  settle(arguments, switches);
  parsed.arguments = std::move(arguments);
  return parsed;
}

}  // namespace ds4::app
