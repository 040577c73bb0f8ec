#include "base/hash.h"

#include <string_view>

#include <gtest/gtest.h>

namespace ds4 {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

TEST(Hash, Sha256MatchesThePublishedVector) {
  EXPECT_EQ(to_hex(sha256(bytes_of("abc"))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Hash, Sha256InPiecesEqualsWhole) {
  Sha256 hasher;
  hasher.update(bytes_of("a"));
  hasher.update(bytes_of("bc"));
  EXPECT_EQ(hasher.finish(), sha256(bytes_of("abc")));
  hasher.update(bytes_of("abc"));
  EXPECT_EQ(hasher.finish(), sha256(bytes_of("abc"))) << "finish() must start anew";
}

TEST(Hash, Sha256SoFarLeavesTheHashGoing) {
  Sha256 hasher;
  hasher.update(bytes_of("a"));
  EXPECT_EQ(hasher.digest_so_far(), sha256(bytes_of("a")));
  hasher.update(bytes_of("bc"));
  EXPECT_EQ(hasher.digest_so_far(), sha256(bytes_of("abc")));
  EXPECT_EQ(hasher.finish(), sha256(bytes_of("abc")));
}

TEST(Hash, Xxh3SeesEveryByte) {
  EXPECT_EQ(xxh3({}), 0x2d06800538d394c2ULL);  // the published value of the empty input
  EXPECT_NE(xxh3(bytes_of("abc")), xxh3(bytes_of("abd")));
}

}  // namespace
}  // namespace ds4
