// An importance file on hostile bytes: the reader refuses with ds4::Error or gives values.
//
// modules: convert base
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "convert/imatrix.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const ds4::convert::Imatrix imatrix(std::as_bytes(std::span(data, size)), "fuzz");
    const ds4::convert::PlannedTensor tensor{.name = "a",
                                             .source = "b{}",
                                             .tensor_class = ds4::convert::TensorClass::kRoutedUp,
                                             .shape = {2, 1, 2}};
    for (const std::uint64_t slab : {0, 1}) {
      const auto values = imatrix.find(tensor, slab);
      if (!values.empty() && values.size() != 2) __builtin_trap();
    }
  } catch (const ds4::Error&) {
  }
  return 0;
}
