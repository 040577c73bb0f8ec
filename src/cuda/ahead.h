#pragma once
#include <initializer_list>

#include "cuda/device.h"
#include "cuda/matrix.h"

namespace ds4::cuda {

// Brings weights into the card's second-level cache while its memory is idle.
//
// Between the large products of a decode step stand small kernels that wait for each other and read
// little.  Their time is enough to read most of the next product's weights, which depend on
// nothing: fetch() does so on a stream of its own that starts where the main stream is.  Results
// are the same with and without it.  Confined to the thread of its machine.
class Ahead {
 public:
  Ahead() : stream_(false) {}

  // After what `main` has been given so far, fetches `matrices` in order, up to a limit that leaves
  // room in the cache.  Empty matrices are passed over.
  void fetch(Stream& main, std::initializer_list<const Matrix*> matrices);
  // `main` waits for all fetches: what a recording must end with.
  void join(Stream& main);

 private:
  Stream stream_;
  Mark mark_;
  bool used_ = false;
};

}  // namespace ds4::cuda
