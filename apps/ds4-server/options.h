#pragma once
#include <optional>
#include <string>

#include "common/fence.h"
#include "kvstore/engine_store.h"
#include "runtime/open.h"
#include "server/server.h"

namespace ds4::app {

inline constexpr int kExitSecondSignal = 130;

struct ServerArguments {
  OpenOptions open;
  server::ServerOptions server;
  std::filesystem::path key_file;
  kvstore::EngineStoreOptions kv;  // kv.store.directory empty: no store
  std::uint64_t kv_space_mb = 65536;
  std::uint64_t kv_written_mb_per_day = 0;
  std::filesystem::path directory;  // to go to before anything is opened
  int power_percent = 100;
  std::uint32_t drain_s = 30;
  bool verbose = false;
  bool plan = false;
};

// What the command line says, or what to print and how to exit.
struct ParsedArguments {
  std::optional<ServerArguments> arguments;
  int exit_code = 0;
  std::string text;
};
ParsedArguments parse_arguments(int argc, char** argv);

}  // namespace ds4::app
