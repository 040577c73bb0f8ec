#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace ds4::bench {

// One line of the table: one frontier with one number of users.  Rates are medians over the runs of
// a phase and sum over users; a spread is (highest - lowest) / median of the same rates.  Values
// that do not apply or could not be found out are 0 or empty.  The column is named as the member.
struct TableRow {
  std::uint32_t ctx_tokens = 0;
  std::uint32_t prefill_tokens = 0;  // of each user, since the frontier before
  double prefill_tps = 0;
  std::uint32_t gen_tokens = 0;  // of each user
  double gen_tps = 0;            // all of gen_tokens
  double gen_first_ms = 0;
  std::uint32_t gen_steady_tokens = 0;  // the others
  double gen_steady_tps = 0;
  std::uint64_t kvcache_bytes = 0;  // of one user's state, as it would be stored
  std::uint32_t batch = 1;          // users
  std::uint32_t prefill_runs = 0;
  double prefill_spread = 0;
  std::uint32_t gen_runs = 0;
  double gen_spread = 0;          // of gen_steady_tps, or gen_tps where that is 0
  double prefill_tflops = 0;      // reached
  double prefill_roof_share = 0;  // of the machine's best, in [0, 1]
  double gen_bytes = 0;           // read for one token of one user
  double gen_gbps = 0;            // reached
  double gen_roof_share = 0;      // of copy_gbps, in [0, 1]
  double clock_mhz = 0;           // right after decoding
  double power_watts = 0;         // likewise
  std::string throttled;          // likewise
  double load_s = 0;              // from the file's pages in memory to ready
  double extra_bytes = 0;         // memory beyond the file's weights
  double copy_gbps = 0;
  double upload_gbps = 0;
  double clock_max_mhz = 0;
  double peak_tflops = 0;
  std::string backend;
  std::string device;
  std::string driver;
  std::string model;
};

// The line that names the columns, and one line of values; both end with a newline.
std::string csv_header();
std::string csv_line(const TableRow& row);

// Reads what csv_line() wrote, or any table that has the columns ctx_tokens, prefill_tps and
// gen_tps; others may be missing or stand in any order, unknown ones are ignored.  Throws
// Error(kBadFormat) with the line.
std::vector<TableRow> parse_csv(std::string_view text, std::string_view name);
std::vector<TableRow> read_csv(const std::filesystem::path& path);

// The middle value, or the mean of the two in the middle; 0 of none.
double median(std::vector<double> values);
// (highest - lowest) / median; 0 of fewer than two.
double spread(const std::vector<double>& values);

}  // namespace ds4::bench
