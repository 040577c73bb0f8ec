// What goes wrong on a card, played by the emulation: a launch that fails some time after it was
// made, and memory that runs out at every point of loading.
#include <string>

#include "cuda/emulation/faults.h"
#include "cuda/launch_trail.h"
#include "cuda_pair.h"

namespace ds4 {
namespace {

using testing::HasSubstr;

// Takes the injected faults back however a test ends.
class CudaFault : public testing::Test {
 protected:
  ~CudaFault() override {
    cuda::emulation::fail_after(0);
    cuda::emulation::limit_memory(UINT64_MAX);
  }
};

struct Failure {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
};

template <class Call>
Failure failure_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {ErrorCode::kInternal, "nothing failed"};
}

TEST_F(CudaFault, AFailedLaunchIsNamedAndTheContextStaysLost) {
  test::CudaPair pair(test::device_shape(), ElementType::kQ8_0, 32);
  Executor& executor = *pair.cuda;
  const auto tokens = test::random_tokens(executor.config(), 4, 41);
  const SequenceId sequence = executor.open_sequence(64);
  static_cast<void>(test::run_rows(executor, test::rows_of(tokens, sequence, 0, 1)));
  cuda::emulation::fail_after(5);
  const Failure failure = failure_of(
      [&] { static_cast<void>(test::run_rows(executor, test::rows_of(tokens, sequence, 1, 2))); });
  EXPECT_EQ(failure.code, ErrorCode::kDevice);
  EXPECT_THAT(
      failure.message,
      testing::MatchesRegex("the CUDA device failed in one of [0-9]+ launches from '.+' to '.+', "
                            "noticed in .+: an injected fault; .*--stage-times.*"));
  // The step did not happen, and nothing can be read out to be stored.
  EXPECT_EQ(executor.length(sequence), 1U);
  const StateSection section = executor.layout().sections(1).front();
  std::vector<std::byte> bytes(section.bytes());
  EXPECT_EQ(failure_of([&] { executor.read_state(sequence, section, bytes); }).code,
            ErrorCode::kDevice);
  EXPECT_EQ(failure_of([&] {
              static_cast<void>(test::run_rows(executor, test::rows_of(tokens, sequence, 1, 2)));
            }).code,
            ErrorCode::kDevice);
}

TEST_F(CudaFault, OneLaunchIsNamedAlone) {
  cuda::LaunchTrail trail;
  EXPECT_EQ(cuda::device_failure_text("a step", "why", trail),
            "the CUDA device failed in a step: why");
  trail.add("routing");
  EXPECT_EQ(cuda::device_failure_text("a step", "why", trail),
            "the CUDA device failed in routing: why");
  cuda::LaunchTrail recorded;
  recorded.add("attention");
  recorded.add("output head");
  trail.add(recorded);
  EXPECT_THAT(cuda::device_failure_text("a step", "why", trail),
              HasSubstr("3 launches from 'routing' to 'output head'"));
}

// With every amount of memory that is too little, loading ends with a message that says for what
// and how much; with what the plan says, and the copy buffers of loading, it works.
TEST_F(CudaFault, MemoryThatRunsOutIsAClearMessage) {
  const test::RandomModel model(test::device_shape(), ElementType::kQ8_0);
  const cuda::CudaOptions options{.thread_count = 1, .rows_max = 32, .context = 256};
  const auto plan = cuda::plan_cuda_memory(model.config(), model.weights(), options, 256);
  std::uint64_t planned = 0;
  for (const MemoryItem& item : plan)
    planned += item.bytes;
  const auto load = [&] {
    const auto executor = cuda::make_cuda_executor(model.config(), model.weights(), options);
    static_cast<void>(executor->open_sequence(256));
  };
  constexpr std::uint64_t kCopyBuffers = std::uint64_t{128} << 20;
  cuda::emulation::limit_memory(planned + kCopyBuffers);
  load();
  for (const std::uint64_t bytes :
       {std::uint64_t{0}, plan[0].bytes / 2, plan[0].bytes + kCopyBuffers / 2,
        planned + kCopyBuffers - plan[1].bytes - 1, planned + kCopyBuffers - 1}) {
    cuda::emulation::limit_memory(bytes);
    const Failure failure = failure_of(load);
    EXPECT_EQ(failure.code, ErrorCode::kOutOfMemory) << bytes << ": " << failure.message;
    EXPECT_THAT(failure.message,
                testing::MatchesRegex("no device memory for .+: .+ asked for, .+"));
  }
}

}  // namespace
}  // namespace ds4
