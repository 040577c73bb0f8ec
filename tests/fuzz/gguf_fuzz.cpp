// The GGUF reader on hostile bytes: it refuses with ds4::Error or gives views that stay inside
// them.
//
// modules: gguf base
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/error.h"
#include "gguf/reader.h"

namespace {

// Reads every byte that a view claims, for the sanitizer to judge.
std::uint64_t sum_of(std::span<const std::byte> bytes) {
  std::uint64_t sum = 0;
  for (const std::byte value : bytes)
    sum += static_cast<std::uint64_t>(value);
  return sum;
}

std::uint64_t sum_of(std::string_view text) {
  return sum_of(std::as_bytes(std::span(text)));
}

template <class Call>
void tolerate(Call&& call) {
  try {
    call();
  } catch (const ds4::Error&) {
  }
}

void read_key(const ds4::gguf::Reader& reader, std::string_view key, std::uint64_t& sum) {
  sum += sum_of(key);
  sum += sum_of(reader.find(key)->encoded);
  tolerate([&] { sum += reader.get_u64(key); });
  tolerate([&] { sum += reader.get_f32(key) > 0 ? 1 : 0; });
  tolerate([&] { sum += reader.get_bool(key) ? 1 : 0; });
  tolerate([&] { sum += sum_of(reader.get_string(key)); });
  tolerate([&] { sum += reader.get_u32_array(key).size(); });
  tolerate([&] { sum += reader.get_f32_array(key).size(); });
  tolerate([&] {
    for (const std::string_view text : reader.get_strings(key))
      sum += sum_of(text);
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  tolerate([&] {
    const ds4::gguf::Reader reader(std::as_bytes(std::span(data, size)), "fuzz");
    std::uint64_t sum = 0;
    for (const std::string_view key : reader.keys())
      read_key(reader, key, sum);
    for (const ds4::gguf::TensorInfo& tensor : reader.tensors()) {
      sum += sum_of(tensor.name) + sum_of(tensor.bytes) + tensor.value_count();
      sum += tensor.type_name().size() + tensor.shape_text().size();
    }
    static_cast<void>(sum);
  });
  return 0;
}
