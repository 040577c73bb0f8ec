// Runs a fuzz entry point without libFuzzer: every seed as it is, then mutations of the seeds from
// a fixed random seed, for a fixed number of inputs or until a time limit.  It explores little; it
// keeps every entry point compiled, run and free of the plain crashes in every build.
//
//   ds4_fuzz_NAME [SEEDS_DIRECTORY | INPUT_FILE]     a file is run once, to look at a crash
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace fs = std::filesystem;
using Bytes = std::vector<std::uint8_t>;
using Random = std::mt19937_64;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

constexpr std::size_t kInputsMax = 20000;
constexpr std::chrono::seconds kTimeMax{4};
constexpr std::size_t kInputBytesMax = 1U << 16U;
constexpr const char* kCrashFile = "fuzz-smoke-crash.bin";

// The input being run, for the signal handler alone.
// NOLINTNEXTLINE(*-avoid-non-const-global-variables)
const Bytes* current_input = nullptr;

extern "C" void save_input(int signal) {
  const int file = open(kCrashFile, O_CREAT | O_TRUNC | O_WRONLY, 0644);
  if (file >= 0 && current_input != nullptr) {
    const ssize_t written = write(file, current_input->data(), current_input->size());
    static_cast<void>(written);
    close(file);
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void run(const Bytes& input) {
  current_input = &input;
  LLVMFuzzerTestOneInput(input.data(), input.size());
}

Bytes read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::vector<Bytes> read_seeds(const fs::path& path) {
  std::vector<Bytes> seeds;
  if (fs::is_directory(path)) {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(path))
      files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files)
      seeds.push_back(read_file(file));
  }
  seeds.emplace_back();
  seeds.push_back(Bytes(64, 0));
  return seeds;
}

std::size_t below(Random& random, std::size_t bound) {
  return bound == 0 ? 0 : static_cast<std::size_t>(random() % bound);
}

// Numbers at which length checks go wrong.
void write_extreme_integer(Bytes& bytes, Random& random) {
  constexpr std::uint64_t kValues[] = {0,          1,          0x7f,       0x80,
                                       0xff,       0xffff,     0x7fffffff, 0xffffffff,
                                       1ULL << 32, 1ULL << 60, ~0ULL >> 1, ~0ULL};
  const std::uint64_t value = kValues[below(random, std::size(kValues))];
  const std::size_t width = std::size_t{1} << below(random, 4);
  const std::size_t at = below(random, bytes.size());
  for (std::size_t i = 0; i < width && at + i < bytes.size(); ++i)
    bytes[at + i] = static_cast<std::uint8_t>(value >> (8 * i));
}

void mutate_once(Bytes& bytes, const std::vector<Bytes>& seeds, Random& random) {
  const std::size_t at = below(random, bytes.size());
  const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  switch (bytes.empty() ? 4 : below(random, 7)) {
    case 0:
      bytes[at] ^= static_cast<std::uint8_t>(1U << below(random, 8));
      return;
    case 1:
      bytes[at] = static_cast<std::uint8_t>(random());
      return;
    case 2:
      bytes.resize(at);
      return;
    case 3:
      write_extreme_integer(bytes, random);
      return;
    case 4:
      bytes.insert(place, below(random, 16) + 1, static_cast<std::uint8_t>(random()));
      return;
    case 5:
      bytes.erase(place, place + static_cast<std::ptrdiff_t>(
                                     below(random, std::min<std::size_t>(bytes.size() - at, 32))));
      return;
    default: {
      const Bytes& other = seeds[below(random, seeds.size())];
      if (other.empty()) return;
      const std::size_t from = below(random, other.size());
      const std::size_t count = below(random, std::min<std::size_t>(other.size() - from, 64)) + 1;
      bytes.insert(place, other.begin() + static_cast<std::ptrdiff_t>(from),
                   other.begin() + static_cast<std::ptrdiff_t>(from + count));
    }
  }
}

int smoke(const fs::path& seeds_path) {
  const std::vector<Bytes> seeds = read_seeds(seeds_path);
  for (const Bytes& seed : seeds)
    run(seed);
  Random random(1);
  const auto deadline = std::chrono::steady_clock::now() + kTimeMax;
  std::size_t inputs = seeds.size();
  while (inputs < kInputsMax && std::chrono::steady_clock::now() < deadline) {
    Bytes input = seeds[below(random, seeds.size())];
    const std::size_t mutations = below(random, 6) + 1;
    for (std::size_t i = 0; i < mutations; ++i)
      mutate_once(input, seeds, random);
    if (input.size() > kInputBytesMax) input.resize(kInputBytesMax);
    run(input);
    ++inputs;
  }
  std::printf("%zu inputs from %zu seeds\n", inputs, seeds.size());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  for (const int signal : {SIGSEGV, SIGABRT, SIGFPE, SIGBUS, SIGILL})
    std::signal(signal, save_input);
  try {
    const fs::path path = argc > 1 ? argv[1] : "";
    if (!fs::is_regular_file(path)) return smoke(path);
    const Bytes input = read_file(path);
    run(input);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "the entry point threw: %s\n", error.what());
    std::abort();  // saves the input
  }
}
