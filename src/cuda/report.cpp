#include "cuda/report.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include "cuda/device.h"

namespace ds4::cuda {

namespace {

constexpr std::size_t kCopyBytes = std::size_t{512} << 20;
constexpr std::size_t kUploadBytes = std::size_t{128} << 20;
constexpr int kRounds = 8;

// Multiplications and additions of one multiprocessor in one clock, f16 inputs and f32 sums, dense:
// from the tables of NVIDIA's architecture papers.
double matrix_flops_per_clock(int major, int minor) {
  switch (major * 10 + minor) {
    case 80:
      return 2048;
    case 86:
    case 89:
      return 512;
    case 90:
      return 4096;
    case 100:
    case 103:
      return 8192;
    case 120:
    case 121:
      return 1024;
    default:
      return 0;
  }
}

int attribute(cudaDeviceAttr which) {
  int value = 0;
  static_cast<void>(cudaDeviceGetAttribute(&value, which, 0));
  return value;
}

// GB/s of the best of a few rounds of `copy`, which moves `bytes`.
template <class Copy>
double best_rate(Stream& stream, double bytes, const Copy& copy) {
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    copy();
    stream.synchronize("measuring a copy");
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, bytes / seconds * 1e-9);
  }
  return best;
}

// The management library comes with the driver, so it is looked up when the program runs.  Its
// interface is stable C; the few declarations used here follow its reference manual.
class Management {
 public:
  Management() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL), close) {
    if (!library_) return;
    const auto init = find<int (*)()>("nvmlInit_v2");
    const auto by_bus = find<int (*)(const char*, void**)>("nvmlDeviceGetHandleByPciBusId_v2");
    char bus[32] = {};
    if (init == nullptr || by_bus == nullptr || init() != 0) return;
    started_ = true;
    if (cudaDeviceGetPCIBusId(bus, sizeof bus, 0) != cudaSuccess || by_bus(bus, &device_) != 0)
      device_ = nullptr;
  }
  Management(const Management&) = delete;
  Management& operator=(const Management&) = delete;
  ~Management() {
    const auto shutdown = library_ ? find<int (*)()>("nvmlShutdown") : nullptr;
    if (started_ && shutdown != nullptr) shutdown();
  }

  bool usable() const { return device_ != nullptr; }
  double clock_mhz() const { return number("nvmlDeviceGetClockInfo", 1); }
  double temperature() const { return number("nvmlDeviceGetTemperature", 0); }
  double milliwatts() const {
    unsigned value = 0;
    const auto call = find<int (*)(void*, unsigned*)>("nvmlDeviceGetPowerUsage");
    return call != nullptr && call(device_, &value) == 0 ? value : 0;
  }
  std::string throttled() const {
    unsigned long long bits = 0;
    const auto call =
        find<int (*)(void*, unsigned long long*)>("nvmlDeviceGetCurrentClocksThrottleReasons");
    if (call == nullptr || call(device_, &bits) != 0) return {};
    std::string text;
    const auto add = [&](unsigned long long mask, const char* name) {
      if ((bits & mask) == 0) return;
      if (!text.empty()) text += ", ";
      text += name;
    };
    add(0x2, "clocks set by a user");
    add(0x4, "power cap");
    add(0x8 | 0x80, "hardware slowdown");
    add(0x20 | 0x40, "heat");
    return text;
  }
  std::string driver() const {
    char text[96] = {};
    const auto call = find<int (*)(char*, unsigned)>("nvmlSystemGetDriverVersion");
    return call != nullptr && call(text, sizeof text) == 0 ? text : "";
  }

 private:
  static void close(void* library) {
    if (library != nullptr) dlclose(library);
  }
  template <class Function>
  Function find(const char* name) const {
    return reinterpret_cast<Function>(dlsym(library_.get(), name));
  }
  double number(const char* name, int which) const {
    unsigned value = 0;
    const auto call = find<int (*)(void*, int, unsigned*)>(name);
    return call != nullptr && call(device_, which, &value) == 0 ? value : 0;
  }

  std::unique_ptr<void, void (*)(void*)> library_;
  bool started_ = false;
  void* device_ = nullptr;
};

std::string driver_text() {
  int driver = 0;
  int runtime = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  static_cast<void>(cudaRuntimeGetVersion(&runtime));
  const Management management;
  return fmt::format("{}{}CUDA {}.{}, built with {}.{}",
                     management.usable() ? management.driver() : "",
                     management.usable() ? ", " : "", driver / 1000, driver % 1000 / 10,
                     runtime / 1000, runtime % 1000 / 10);
}

}  // namespace

MachineReport report_card() {
  const DeviceInfo info = open_device();
  MachineReport report;
  report.device = info.name;
  report.driver = driver_text();
  report.clock_max_mhz = attribute(cudaDevAttrClockRate) * 1e-3;
  report.peak_tflops = matrix_flops_per_clock(attribute(cudaDevAttrComputeCapabilityMajor),
                                              attribute(cudaDevAttrComputeCapabilityMinor)) *
                       info.multiprocessors * report.clock_max_mhz * 1e-6;
  Stream stream(false);
  const DeviceBuffer from(kCopyBytes, "measuring a copy");
  const DeviceBuffer to(kCopyBytes, "measuring a copy");
  const PinnedBuffer host(kUploadBytes);
  stream.clear(from.data(), from.bytes());
  report.copy_gbps = best_rate(stream, 2.0 * kCopyBytes,
                               [&] { stream.copy_device(to.data(), from.data(), kCopyBytes); });
  report.upload_gbps =
      best_rate(stream, kUploadBytes, [&] { stream.upload(to.data(), host.data(), kUploadBytes); });
  return report;
}

MachineState card_state() {
  MachineState state;
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  if (cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess)
    state.used_bytes = static_cast<double>(total_bytes - free_bytes);
  const Management management;
  if (!management.usable()) return state;
  state.clock_mhz = management.clock_mhz();
  state.power_watts = management.milliwatts() * 1e-3;
  state.temperature_celsius = management.temperature();
  state.throttled = management.throttled();
  return state;
}

}  // namespace ds4::cuda
