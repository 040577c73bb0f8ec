#include "runtime/backends.h"

namespace ds4 {

const BackendFactory* cuda_backend() {
  return nullptr;
}

}  // namespace ds4
