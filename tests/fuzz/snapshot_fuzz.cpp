// Saved session states from outside: edits of a valid one, with its checksum made right again, so
// that the checks behind the checksum are what is tried.  import_state() refuses with ds4::Error
// and leaves the session as it was, or gives a session that goes on.
//
// modules: test_support cpu engine
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "cpu/cpu_executor.h"
#include "engine/session.h"
#include "support/random_model.h"

namespace {

constexpr std::size_t kChecksumBytes = 8;

// An edit is 4 bytes: where (3, little-endian, modulo the size) and the new value.
constexpr std::size_t kEditBytes = 4;

struct Fixture {
  ds4::test::RandomModel model{ds4::test::small_shape()};
  ds4::Engine engine{{},
                     ds4::cpu::make_cpu_executor(
                         model.config(), model.weights(), {.thread_count = 1, .rows_max = 64}),
                     nullptr,
                     nullptr};
  ds4::Session session{engine, {.context = 256}};
  std::vector<std::byte> valid;

  Fixture() {
    session.sync(ds4::test::random_tokens(model.config(), 150, 1));
    valid = session.export_state();
  }
};

void fix_checksum(std::vector<std::byte>& bytes) {
  if (bytes.size() < kChecksumBytes) return;
  const std::size_t body = bytes.size() - kChecksumBytes;
  const std::uint64_t sum = ds4::xxh3(std::span(bytes).first(body));
  std::memcpy(bytes.data() + body, &sum, sizeof(sum));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Fixture* const kFixture = new Fixture;  // kept to the end of the process
  std::vector<std::byte> bytes = kFixture->valid;
  for (std::size_t i = 0; i + kEditBytes <= size && i < 64 * kEditBytes; i += kEditBytes) {
    const std::size_t at = data[i] | data[i + 1] << 8U | data[i + 2] << 16U;
    bytes[at % bytes.size()] = static_cast<std::byte>(data[i + 3]);
  }
  // What is left over cuts the end off.
  if (size % kEditBytes == 1) bytes.resize(bytes.size() * data[size - 1] / 256);
  fix_checksum(bytes);
  ds4::Session& session = kFixture->session;
  try {
    session.import_state(bytes);
    if (session.length() < session.context()) session.eval(ds4::TokenId{1});
  } catch (const ds4::Error&) {
  }
  return 0;
}
