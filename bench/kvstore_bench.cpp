// The store against the disk it stands on: what a plain sequential write and read of the same bytes
// take, then saving and restoring a long sequence of the published Flash shape, then lookups, then
// what a growing conversation and sessions that share a prefix write.
//
//   kvstore_bench [DIRECTORY] [TOKENS]     on the disk to be measured; default: here, 100000
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/error.h"
#include "kvstore/store.h"
#include "kvstore/test_state.h"

namespace {

namespace kv = ds4::kvstore;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Takes a file's pages out of the page cache, so that the next read comes from the disk.
void forget_pages(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
  ::close(descriptor);
}

struct DiskRates {
  double write_bytes_s = 0;
  double read_bytes_s = 0;
};

// One file of `byte_count` bytes in blocks of 4 MiB, synced at the end; then read from the disk.
DiskRates measure_disk(const std::filesystem::path& path, std::uint64_t byte_count) {
  std::vector<char> block(std::size_t{4} << 20);
  for (std::size_t i = 0; i < block.size(); ++i)
    block[i] = static_cast<char>(i * 2654435761U >> 13);
  DiskRates rates;
  int descriptor = ::open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  if (descriptor < 0) ds4::throw_errno("cannot create", path.string());
  Clock::time_point start = Clock::now();
  for (std::uint64_t at = 0; at < byte_count; at += block.size())
    if (::write(descriptor, block.data(), block.size()) < 0)
      ds4::throw_errno("cannot write", path.string());
  ::fsync(descriptor);
  rates.write_bytes_s = static_cast<double>(byte_count) / seconds_since(start);
  ::close(descriptor);
  forget_pages(path);
  descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  start = Clock::now();
  while (::read(descriptor, block.data(), block.size()) > 0) {
  }
  rates.read_bytes_s = static_cast<double>(byte_count) / seconds_since(start);
  ::close(descriptor);
  ::unlink(path.c_str());
  return rates;
}

// A state whose rows cost nothing to make.
class CheapState final : public kv::StateSource {
 public:
  void read_rows(std::size_t array_index,
                 std::uint64_t row_begin,
                 std::span<std::byte> out) override {
    std::memset(out.data(), static_cast<int>(array_index + row_begin), out.size());
  }
  bool has_carry(std::uint64_t) const override { return true; }
  bool has_logits(std::uint64_t) const override { return true; }
  void read_carry(std::size_t array_index, std::uint64_t, std::span<std::byte> out) override {
    std::memset(out.data(), static_cast<int>(array_index), out.size());
  }
};

// Copies what arrives to where a sequence's rows would be.
class CopySink final : public kv::StateSink {
 public:
  explicit CopySink(const kv::StateLayout& layout) : layout_(layout), rows_(layout.rows.size()) {}
  void begin(std::uint64_t token_count) override {
    for (std::size_t i = 0; i < rows_.size(); ++i)
      rows_[i].resize(kv::row_count(layout_.rows[i], token_count) * layout_.rows[i].row_bytes);
  }
  void write_rows(std::size_t array_index,
                  std::uint64_t row_begin,
                  std::span<const std::byte> bytes) override {
    std::memcpy(rows_[array_index].data() + row_begin * layout_.rows[array_index].row_bytes,
                bytes.data(), bytes.size());
  }
  void write_carry(std::size_t, std::span<const std::byte>) override {}

 private:
  const kv::StateLayout& layout_;
  std::vector<std::vector<std::byte>> rows_;
};

kv::SaveOutcome save(kv::Store& store,
                     const kv::KeySpace& space,
                     const kv::Conversation& talk,
                     kv::SaveExtent extent) {
  CheapState state;
  return store.save({.space = space,
                     .tokens = talk.tokens,
                     .token_bytes = talk.token_bytes,
                     .text = talk.bytes(),
                     .role = kv::EntryRole::kContinued,
                     .extent = extent,
                     .urgency = kv::SaveUrgency::kAsked,
                     .prefill_ms_per_token = 1.0,
                     .replaces = std::nullopt},
                    state);
}

// Prints a transfer and returns its share of the disk's rate.
double report(const char* what, std::uint64_t bytes, double seconds, double disk_bytes_s) {
  const double rate = static_cast<double>(bytes) / seconds;
  fmt::print("{:<10} {:8.1f} MB in {:6.3f} s = {:8.1f} MB/s, {:5.1f} % of the disk's {:.1f} MB/s\n",
             what, static_cast<double>(bytes) / 1e6, seconds, rate / 1e6, 100 * rate / disk_bytes_s,
             disk_bytes_s / 1e6);
  return rate / disk_bytes_s;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void bench_transfer(const std::filesystem::path& directory, std::size_t token_count) {
  kv::StoreOptions options;
  options.directory = directory / "transfer";
  options.bytes_max = 0;
  kv::Store store(options);
  const kv::KeySpace space = store.key_space(kv::test_model(kv::flash_layout()));
  const kv::Conversation talk = kv::Conversation().grow(token_count, 1);
  const std::uint64_t expected = kv::rows_bytes(space.model().layout, 0, token_count);
  CopySink sink(space.model().layout);
  sink.begin(token_count);  // its memory is there before the clock starts
  std::vector<double> saves;
  std::vector<double> restores;
  for (int round = 0; round < 5; ++round) {
    const DiskRates disk = measure_disk(directory / "plain", expected);
    store.purge();
    Clock::time_point start = Clock::now();
    const kv::SaveOutcome outcome = save(store, space, talk, kv::SaveExtent::kChunksAndTail);
    saves.push_back(
        report("save", outcome.bytes_written, seconds_since(start), disk.write_bytes_s));
    for (const kv::EntryRow& row : store.entries())
      forget_pages(store.path_of(row));
    start = Clock::now();
    const auto restored = store.resume(space, talk.bytes(), sink);
    restores.push_back(
        report("restore", restored->bytes_read, seconds_since(start), disk.read_bytes_s));
    if (round > 0) continue;
    std::uint64_t chunk_bytes = 0;
    for (const kv::EntryRow& row : store.entries())
      chunk_bytes += row.kind == kv::EntryKind::kChunk ? row.file_bytes : 0;
    const std::size_t chunk_tokens = token_count / options.chunk_tokens * options.chunk_tokens;
    fmt::print("size       {:.1f} bytes a token on disk, the tail apart\n",
               static_cast<double>(chunk_bytes) / static_cast<double>(chunk_tokens));
  }
  fmt::print("median     save {:.1f} %, restore {:.1f} % of the disk's rate (wanted: 60 %)\n",
             100 * median(saves), 100 * median(restores));
}

std::uint64_t bytes_of(kv::Store& store, kv::EntryKind kind) {
  std::uint64_t bytes = 0;
  for (const kv::EntryRow& row : store.entries())
    bytes += row.kind == kind ? row.file_bytes : 0;
  return bytes;
}

// A conversation saved every 500 tokens, each tail in place of the one before.
void bench_growth(const std::filesystem::path& directory, std::size_t token_count) {
  constexpr std::size_t kStepTokens = 500;
  kv::StoreOptions options;
  options.directory = directory / "growth";
  options.bytes_max = 0;
  kv::Store store(options);
  const kv::KeySpace space = store.key_space(kv::test_model(kv::flash_layout()));
  const kv::Conversation talk = kv::Conversation().grow(token_count, 1);
  CheapState state;
  std::uint64_t written = 0;
  std::uint64_t tails = 0;
  std::optional<kv::EntryId> before;
  for (std::size_t end = kStepTokens; end <= token_count; end += kStepTokens) {
    const kv::Conversation part = talk.prefix(end);
    const kv::SaveOutcome outcome = store.save({.space = space,
                                                .tokens = part.tokens,
                                                .token_bytes = part.token_bytes,
                                                .text = part.bytes(),
                                                .role = kv::EntryRole::kContinued,
                                                .extent = kv::SaveExtent::kChunksAndTail,
                                                .urgency = kv::SaveUrgency::kAsked,
                                                .prefill_ms_per_token = 1.0,
                                                .replaces = before},
                                               state);
    written += outcome.bytes_written;
    tails += bytes_of(store, kv::EntryKind::kTail);
    before = outcome.tail;
  }
  const double final_bytes = static_cast<double>(store.stats().bytes);
  const auto chunks = static_cast<double>(bytes_of(store, kv::EntryKind::kChunk));
  fmt::print(
      "growth     {} tokens saved every {}: {:.1f} MB written, {:.1f} MB of it tails; the rest is "
      "{:.3f} times the final size of {:.1f} MB ({:.1f} bytes a token)\n",
      token_count, kStepTokens, static_cast<double>(written) / 1e6,
      static_cast<double>(tails) / 1e6, static_cast<double>(written - tails) / final_bytes,
      final_bytes / 1e6,
      chunks / static_cast<double>(token_count / options.chunk_tokens * options.chunk_tokens));
}

// Sessions that begin alike.
void bench_shared(const std::filesystem::path& directory,
                  std::size_t sessions,
                  std::size_t prefix_tokens) {
  kv::StoreOptions options;
  options.directory = directory / "shared";
  options.bytes_max = 0;
  kv::Store store(options);
  const kv::KeySpace space = store.key_space(kv::test_model(kv::flash_layout()));
  const kv::Conversation prefix = kv::Conversation().grow(prefix_tokens, 1);
  std::uint64_t one = 0;
  for (std::uint32_t i = 0; i < sessions; ++i) {
    save(store, space, kv::Conversation(prefix).grow(500, 100 + i), kv::SaveExtent::kChunksAndTail);
    if (i == 0) one = bytes_of(store, kv::EntryKind::kChunk);
  }
  fmt::print(
      "shared     {} sessions with {} tokens in common: {:.1f} MB of chunks, of one alone "
      "{:.1f} MB; tails {:.1f} MB\n",
      sessions, prefix_tokens, static_cast<double>(bytes_of(store, kv::EntryKind::kChunk)) / 1e6,
      static_cast<double>(one) / 1e6,
      static_cast<double>(bytes_of(store, kv::EntryKind::kTail)) / 1e6);
}

// Mean of many lookups of prompts that run through `chunks_each` chunks.
void bench_lookup(const std::filesystem::path& directory,
                  const char* name,
                  std::size_t conversations,
                  std::size_t chunks_each) {
  kv::StoreOptions options;
  options.directory = directory / name;
  options.chunk_tokens = 128;
  options.state_stride_chunks = 1;
  options.bytes_max = 0;
  kv::Store store(options);
  const kv::KeySpace space = store.key_space(kv::test_model(kv::small_layout()));
  std::vector<kv::Conversation> talks;
  for (std::uint32_t seed = 0; seed < conversations; ++seed) {
    talks.push_back(kv::Conversation().grow(chunks_each * 128 + 1, seed));
    save(store, space, talks.back(), kv::SaveExtent::kChunks);
  }
  std::size_t found = 0;
  const Clock::time_point start = Clock::now();
  const std::clock_t cpu_start = std::clock();
  for (const kv::Conversation& talk : talks)
    found += store.lookup(space, talk.bytes()).value_or(kv::Hit{}).token_count / 128;
  const double mean_ms = seconds_since(start) * 1000 / static_cast<double>(talks.size());
  const double cpu_ms = static_cast<double>(std::clock() - cpu_start) * 1000 / CLOCKS_PER_SEC /
                        static_cast<double>(talks.size());
  fmt::print(
      "lookup     {:<14} {:6} entries, {:3} deep: {:.3f} ms ({:.3f} ms of processor), {} of {} "
      "found\n",
      name, store.stats().entries, chunks_each, mean_ms, cpu_ms, found,
      conversations * chunks_each);
}

}  // namespace

int main(int argc, char** argv) {
  const std::filesystem::path base = argc > 1 ? argv[1] : ".";
  const std::size_t token_count = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 100'000;
  const std::filesystem::path directory = base / fmt::format("kvstore_bench.{}", ::getpid());
  std::filesystem::create_directories(directory);
  int status = 0;
  try {
    bench_transfer(directory, token_count);
    bench_lookup(directory, "conversations", 200, 50);
    bench_lookup(directory, "one-root", 10'000, 1);
    bench_growth(directory, 50'000);
    bench_shared(directory, 10, 20'000);
  } catch (const std::exception& error) {
    fmt::print(stderr, "kvstore_bench: {}\n", error.what());
    status = 1;
  }
  std::filesystem::remove_all(directory);
  return status;
}
