// A model file's metadata and tensor table on hostile bytes: config and binding refuse with
// ds4::Error or give weights that lie inside the file.
//
// modules: model gguf base
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "gguf/reader.h"
#include "model/config.h"
#include "model/weights.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const ds4::gguf::Reader reader(std::as_bytes(std::span(data, size)), "fuzz");
    const ds4::ModelConfig config = ds4::read_config(reader, {});
    const ds4::Weights weights = ds4::bind_weights(reader, nullptr, config, {});
    weights.for_each([&](const ds4::Weight& weight) {
      if (weight.bytes.size() != weight.slabs * weight.slab_bytes()) __builtin_trap();
    });
  } catch (const ds4::Error&) {
  }
  return 0;
}
