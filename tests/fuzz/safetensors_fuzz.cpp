// A checkpoint file's header on hostile bytes: the reader refuses with ds4::Error or gives views
// that stay inside them.
//
// modules: convert base
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "convert/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const ds4::convert::SafetensorsFile file(bytes, "fuzz");
    std::uint64_t sum = 0;
    for (const auto& [name, tensor] : file.tensors()) {
      std::uint64_t expected = ds4::convert::source_type_bytes(tensor.type);
      for (const std::uint64_t extent : tensor.shape)
        expected *= extent;
      if (tensor.bytes.size() != expected || tensor.bytes.size() > bytes.size()) __builtin_trap();
      // Read what the view claims, for the sanitizer to judge.
      for (const std::byte value : tensor.bytes)
        sum += static_cast<std::uint64_t>(value);
      sum += tensor.describe().size();
    }
    static_cast<void>(sum);
  } catch (const ds4::Error&) {
  }
  return 0;
}
