#include "server/trace.h"

#include <cerrno>
#include <string_view>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/utf8.h"
#include "server/json_read.h"

namespace ds4::server {

namespace {

// -1 with errno when it cannot be appended to, or not be kept private.
int open_private(const std::filesystem::path& path) {
  const int descriptor =
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor < 0 || ::fchmod(descriptor, 0600) == 0) return descriptor;
  const int problem = errno;
  ::close(descriptor);
  errno = problem;
  return -1;
}

}  // namespace

Trace::Trace(std::filesystem::path path, std::uint64_t bytes_max)
    : path_(std::move(path)),
      bytes_max_(bytes_max),
      descriptor_(open_private(path_)) {
  if (descriptor_ < 0) throw_errno("cannot append privately to", path_.string());
  struct stat info {};
  written_ = ::fstat(descriptor_, &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
}

Trace::~Trace() {
  ::close(descriptor_);
}

// Goes on with the old file when there can be no new one.
void Trace::turn_over() {
  std::error_code error;
  std::filesystem::rename(path_, path_.string() + ".1", error);
  if (error) return;
  written_ = 0;
  const int fresh = open_private(path_);
  if (fresh < 0) return;
  ::close(descriptor_);
  descriptor_ = fresh;
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
        {"reason", entry.reuse.reason},
        {"first_difference", entry.reuse.first_difference},
        {"expected", to_valid_utf8(entry.reuse.expected)},
        {"found", to_valid_utf8(entry.reuse.found)},
        {"disk",
         {{"reason", entry.stored.reason},
          {"agreed_tokens", entry.stored.agreed_tokens},
          {"first_difference", entry.stored.first_difference},
          {"saved", to_valid_utf8(entry.stored.saved)}}}}},
      {"answer",
       {{"reasoning", entry.answer.reasoning}, {"text", entry.answer.text}, {"calls", calls}}},
      {"finish", entry.finish},
      {"answer_tokens", entry.result.generated_tokens},
      {"queue_s", entry.result.queue_seconds},
      {"prefill_s", entry.result.prefill_seconds},
      {"decode_s", entry.result.decode_seconds}};
  const std::string line = dump(json) + "\n";
  const std::lock_guard lock(mutex_);
  if (written_ > 0 && written_ + line.size() > bytes_max_) turn_over();
  std::string_view left = line;
  while (!left.empty()) {
    const ssize_t done = ::write(descriptor_, left.data(), left.size());
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return;
    written_ += static_cast<std::uint64_t>(done);
    left.remove_prefix(static_cast<std::size_t>(done));
  }
}

}  // namespace ds4::server
