#include "server/trace.h"

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/utf8.h"
#include "server/json_read.h"

namespace ds4::server {

Trace::Trace(std::filesystem::path path, std::uint64_t bytes_max)
    : path_(std::move(path)),
      bytes_max_(bytes_max) {
  open();
}

Trace::~Trace() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void Trace::open() {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (descriptor_ < 0) throw_errno("cannot append to", path_.string());
  ::fchmod(descriptor_, 0600);
  struct stat info {};
  written_ = ::fstat(descriptor_, &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
}

void Trace::write(const TraceEntry& entry) {
  Json calls = Json::array();
  for (const FinishedCall& call : entry.answer.calls)
    calls.push_back({{"id", call.id}, {"name", call.name}, {"arguments", call.arguments}});
  const Json json = {
      {"request", entry.request},
      {"protocol", entry.protocol},
      {"body", entry.body},
      {"cache",
       {{"source", reuse_source_name(entry.reuse.source)},
        {"slot", entry.reuse.slot},
        {"prompt_tokens", entry.reuse.prompt_tokens},
        {"reused_tokens", entry.reuse.reused_tokens},
        {"lost_tokens", entry.reuse.lost_tokens},
        {"first_difference", entry.reuse.first_difference},
        {"expected", to_valid_utf8(entry.reuse.expected)},
        {"found", to_valid_utf8(entry.reuse.found)}}},
      {"answer",
       {{"reasoning", entry.answer.reasoning}, {"text", entry.answer.text}, {"calls", calls}}},
      {"finish", entry.finish},
      {"answer_tokens", entry.result.generated_tokens},
      {"queue_s", entry.result.queue_seconds},
      {"prefill_s", entry.result.prefill_seconds},
      {"decode_s", entry.result.decode_seconds}};
  const std::string line = dump(json) + "\n";
  const std::lock_guard lock(mutex_);
  if (written_ > 0 && written_ + line.size() > bytes_max_) {
    std::error_code ignored;
    std::filesystem::rename(path_, path_.string() + ".1", ignored);
    open();
  }
  const ssize_t done = ::write(descriptor_, line.data(), line.size());
  if (done > 0) written_ += static_cast<std::uint64_t>(done);
}

}  // namespace ds4::server
