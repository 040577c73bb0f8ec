#pragma once
#include <string>

namespace ds4 {

// What a reader needs to judge a figure of speed: the machine that it was measured on and what that
// machine can do at best.  Values that could not be found out are 0 or empty.
struct MachineReport {
  std::string device = {};   // for people
  std::string driver = {};   // and the versions that matter
  double clock_max_mhz = 0;  // of the processors that do the arithmetic
  double copy_gbps = 0;    // GB/s, bytes read plus bytes written, of a large copy within the memory
                           // that weights are in
  double upload_gbps = 0;  // GB/s from host memory to the device; 0 where they are the same
  double peak_tflops = 0;  // of the matrix units with f16 inputs, at the highest clock
};

// The state of the machine at this moment, read often.
struct MachineState {
  double clock_mhz = 0;
  double power_watts = 0;
  double temperature_celsius = 0;
  double used_bytes = 0;       // of the device's memory, by every process
  std::string throttled = {};  // why the clock is below its highest, e.g. "power cap"
};

}  // namespace ds4
