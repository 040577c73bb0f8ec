#pragma once
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>

#include "server/answer.h"

namespace ds4::server {

// What one request was and became, for the trace.
struct TraceEntry {
  std::uint64_t request = 0;
  std::string protocol;
  std::string body;  // as the client sent it
  ReuseReport reuse;
  MissNote stored;  // why the disk store had no more
  AnswerRecord answer;
  std::string finish;
  GenerationResult result;
};

// A private file (0600) of one JSON object a line; the only place where prompts are written down.
// When it has grown beyond `bytes_max` it becomes FILE.1 and a new one begins.  Synchronised.
class Trace {
 public:
  // Throws Error(kIo) when the file cannot be appended to, belongs to somebody else or is a link.
  Trace(std::filesystem::path path, std::uint64_t bytes_max);
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;
  ~Trace();

  // Drops the entry when the disk fails.
  void write(const TraceEntry& entry);

 private:
  void turn_over();

  const std::filesystem::path path_;
  const std::uint64_t bytes_max_;
  int descriptor_;
  std::mutex mutex_;
  std::uint64_t written_ = 0;
};

}  // namespace ds4::server
