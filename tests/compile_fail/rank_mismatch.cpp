// A matrix is not a vector.
#include <cstddef>

#include "tensor/view.h"

void add(ds4::TensorView<float, 1> vector);

void use(ds4::Rows rows) {
  add(rows[0]);
#ifdef DS4_MUST_FAIL
  add(rows);
#endif
}
