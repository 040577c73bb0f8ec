#include "model/fingerprint.h"

#include <algorithm>

#include "gguf/reader.h"

namespace ds4 {

Sha256Digest model_fingerprint(const gguf::Reader& file) {
  constexpr std::size_t kSampleBytes = 256;
  const auto text = [](std::string_view value) {
    return std::as_bytes(std::span(value.data(), value.size()));
  };
  Sha256 hash;
  for (const std::string_view key : file.keys()) {
    hash.update(text(key));
    hash.update(file.find(key)->encoded);
  }
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    hash.update(text(tensor.name));
    hash.update(std::as_bytes(std::span(&tensor.type_id, 1)));
    hash.update(std::as_bytes(std::span(tensor.shape)));
    hash.update(tensor.bytes.first(std::min(kSampleBytes, tensor.bytes.size())));
  }
  return hash.finish();
}

}  // namespace ds4
