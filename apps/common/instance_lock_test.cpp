#include "common/instance_lock.h"

#include <fstream>
#include <string>

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"

namespace ds4::app {
namespace {

class InstanceLockTest : public testing::Test {
 protected:
  InstanceLockTest()
      : path_(std::filesystem::temp_directory_path() /
              ("ds4-lock-test-" + std::to_string(::getpid()))) {}
  ~InstanceLockTest() override { std::filesystem::remove(path_); }
  std::filesystem::path path_;
};

TEST_F(InstanceLockTest, ASecondHolderIsRefusedWithTheFirstOnesProcess) {
  const InstanceLock first(path_);
  try {
    const InstanceLock second(path_);
    FAIL() << "locked twice";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBusy);
    EXPECT_NE(std::string(error.what()).find(std::to_string(::getpid())), std::string::npos);
  }
}

TEST_F(InstanceLockTest, IsFreeAgainAfterItsHolder) {
  { const InstanceLock first(path_); }
  const InstanceLock second(path_);
  std::ifstream file(path_);
  std::string text;
  file >> text;
  EXPECT_EQ(text, std::to_string(::getpid()));
}

TEST_F(InstanceLockTest, AnEmptyPathLocksNothing) {
  const InstanceLock first("");
  const InstanceLock second("");
}

TEST_F(InstanceLockTest, FollowsNoLink) {
  std::filesystem::create_symlink("/dev/null", path_);
  EXPECT_THROW(InstanceLock{path_}, Error);
}

}  // namespace
}  // namespace ds4::app
