// What `/switch` does between two long conversations: save the one, restore the other.
//
//   kvstore_switch_bench MODEL [DIRECTORY] [TOKENS]     default: here, 100000
//
// The conversations' rows are arbitrary: a restore moves and checks the same bytes whatever they
// mean, and computing so many with a real prompt would take minutes.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/error.h"
#include "kvstore/engine_state.h"
#include "kvstore/session_store.h"
#include "runtime/open.h"

namespace {

namespace kv = ds4::kvstore;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class AnyState final : public kv::StateSource {
 public:
  void read_rows(std::size_t array, std::uint64_t row, std::span<std::byte> out) override {
    std::memset(out.data(), static_cast<int>(array + row), out.size());
  }
  bool has_carry(std::uint64_t) const override { return true; }
  bool has_logits(std::uint64_t) const override { return true; }
  void read_carry(std::size_t array, std::uint64_t, std::span<std::byte> out) override {
    std::memset(out.data(), static_cast<int>(array), out.size());
  }
};

void forget_pages(const std::filesystem::path& directory) {
  for (const auto& file : std::filesystem::recursive_directory_iterator(directory)) {
    const int descriptor = ::open(file.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) continue;
    ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
    ::close(descriptor);
  }
}

void run(const std::string& model, const std::filesystem::path& directory, std::uint32_t length) {
  ds4::OpenOptions open;
  open.model = model;
  open.context = length + 1000;
  const auto engine = ds4::open_engine(open);
  kv::Store store({.directory = directory, .bytes_max = 0});
  kv::SessionStore sessions(store);
  const kv::KeySpace space = store.key_space(kv::identity_of(*engine));
  const auto vocab = static_cast<std::int32_t>(engine->config().vocab_size);
  const auto save = [&](const char* name, std::int32_t seed, std::uint32_t count,
                        kv::StateSource& source) {
    std::vector<ds4::TokenId> tokens;
    for (std::uint32_t i = 0; i < count; ++i)
      tokens.emplace_back(static_cast<std::int32_t>((i * 7919 + seed) % (vocab - 300)) + 100);
    const kv::TokenText text = kv::token_text(engine->tokenizer(), tokens);
    sessions.save({.id = kv::SessionStore::id_of_name(name),
                   .title = name,
                   .space = space,
                   .tokens = tokens,
                   .token_bytes = text.token_bytes,
                   .text = text.text},
                  source);
  };
  AnyState any;
  save("a", 1, length, any);
  save("b", 2, length, any);
  ds4::Session session(*engine, {.context = open.context});
  const auto restore = [&](const char* name) {
    const kv::SessionContent content = sessions.read(kv::SessionStore::id_of_name(name));
    const auto hit = sessions.hit(content.info, space);
    kv::SessionSink sink(session, space.model().layout);
    const kv::Restored restored = store.restore(space, *hit, sink);
    sink.finish(restored.tokens);
    return restored.bytes_read;
  };
  restore("a");
  for (int round = 0; round < 5; ++round) {
    const char* const from = round % 2 == 0 ? "a" : "b";
    const char* const to = round % 2 == 0 ? "b" : "a";
    forget_pages(directory);
    // The one that is left has grown by some tokens, so that there is something to save.
    const auto start = Clock::now();
    kv::SessionSource source(session, space.model().layout);
    save(from, round % 2 == 0 ? 1 : 2, session.length(), source);
    const double saved = seconds_since(start);
    const std::uint64_t bytes = restore(to);
    fmt::print("switch     {} tokens: {:.3f} s, {:.3f} s of it saving; {:.1f} MB read\n",
               session.length(), seconds_since(start), saved, static_cast<double>(bytes) / 1e6);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: {} MODEL [DIRECTORY] [TOKENS]\n", argv[0]);
    return 2;
  }
  const std::filesystem::path base = argc > 2 ? argv[2] : ".";
  const auto length =
      static_cast<std::uint32_t>(argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 100'000);
  const std::filesystem::path directory = base / fmt::format("kvstore_switch.{}", ::getpid());
  int status = 0;
  try {
    run(argv[1], directory, length);
  } catch (const std::exception& error) {
    fmt::print(stderr, "kvstore_switch_bench: {}\n", error.what());
    status = 1;
  }
  std::filesystem::remove_all(directory);
  return status;
}
