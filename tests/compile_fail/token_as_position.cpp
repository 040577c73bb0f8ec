// A token is not a place in the text.
#include "tensor/strong.h"

void seek(ds4::Position position);

void use(ds4::TokenId token) {
  seek(ds4::Position{7});
#ifdef DS4_MUST_FAIL
  seek(token);
#endif
  static_cast<void>(token);
}
