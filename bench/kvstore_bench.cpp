// The store against the disk it stands on: what a plain sequential write and read of the same bytes
// take, then saving and restoring a long sequence of the published Flash shape, then lookups.
//
//   kvstore_bench [DIRECTORY] [TOKENS]     on the disk to be measured; default: here, 100000
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
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

void report(const char* what, std::uint64_t bytes, double seconds, double disk_bytes_s) {
  const double rate = static_cast<double>(bytes) / seconds;
  fmt::print("{:<10} {:8.1f} MB in {:6.3f} s = {:8.1f} MB/s, {:5.1f} % of the disk's {:.1f} MB/s\n",
             what, static_cast<double>(bytes) / 1e6, seconds, rate / 1e6, 100 * rate / disk_bytes_s,
             disk_bytes_s / 1e6);
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
  for (int round = 0; round < 3; ++round) {
    const DiskRates disk = measure_disk(directory / "plain", expected);
    store.purge();
    Clock::time_point start = Clock::now();
    const kv::SaveOutcome outcome = save(store, space, talk, kv::SaveExtent::kChunksAndTail);
    report("save", outcome.bytes_written, seconds_since(start), disk.write_bytes_s);
    for (const kv::EntryRow& row : store.entries())
      forget_pages(store.path_of(row));
    start = Clock::now();
    const auto restored = store.resume(space, talk.bytes(), sink);
    report("restore", restored->bytes_read, seconds_since(start), disk.read_bytes_s);
    if (round > 0) continue;
    std::uint64_t chunk_bytes = 0;
    for (const kv::EntryRow& row : store.entries())
      chunk_bytes += row.kind == kv::EntryKind::kChunk ? row.file_bytes : 0;
    const std::size_t chunk_tokens = token_count / options.chunk_tokens * options.chunk_tokens;
    fmt::print("size       {:.1f} bytes a token on disk, the tail apart\n",
               static_cast<double>(chunk_bytes) / static_cast<double>(chunk_tokens));
  }
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
  } catch (const std::exception& error) {
    fmt::print(stderr, "kvstore_bench: {}\n", error.what());
    status = 1;
  }
  std::filesystem::remove_all(directory);
  return status;
}
