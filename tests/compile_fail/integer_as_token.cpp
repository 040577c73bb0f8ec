// An integer becomes a token by name only.
#include "tensor/strong.h"

void feed(ds4::TokenId token);

void use(int id) {
  feed(ds4::TokenId{id});
#ifdef DS4_MUST_FAIL
  feed(id);
#endif
}
