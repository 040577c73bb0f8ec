#pragma once
#include "base/hash.h"

namespace ds4::gguf {
class Reader;
}  // namespace ds4::gguf

namespace ds4 {

// Identity of a model file's weights: SHA-256 over its header (metadata, tensor names, types,
// shapes and offsets) and the first bytes of every tensor.  Cheap enough for every start; stored
// state of one fingerprint is refused by another.
Sha256Digest model_fingerprint(const gguf::Reader& file);

}  // namespace ds4
