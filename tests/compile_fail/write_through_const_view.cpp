// A view of rows that are only read gives no way to write them.
#include <cstddef>

#include "tensor/view.h"

void use(ds4::ConstRows input, ds4::Rows output) {
  output[0][0] = input[0][0];
#ifdef DS4_MUST_FAIL
  input[0][0] = output[0][0];
#endif
}
