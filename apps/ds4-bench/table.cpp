#include "table.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <type_traits>

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"

namespace ds4::bench {

namespace {

constexpr std::size_t kTableBytesMax = std::size_t{16} << 20;

// Calls visit(name, member, digits behind the point) for every column, in order.
template <class Row, class Visit>
void each_column(Row& r, const Visit& visit) {
  visit("ctx_tokens", r.ctx_tokens, 0);
  visit("prefill_tokens", r.prefill_tokens, 0);
  visit("prefill_tps", r.prefill_tps, 2);
  visit("gen_tokens", r.gen_tokens, 0);
  visit("gen_tps", r.gen_tps, 2);
  visit("gen_first_ms", r.gen_first_ms, 3);
  visit("gen_steady_tokens", r.gen_steady_tokens, 0);
  visit("gen_steady_tps", r.gen_steady_tps, 2);
  visit("kvcache_bytes", r.kvcache_bytes, 0);
  visit("batch", r.batch, 0);
  visit("prefill_runs", r.prefill_runs, 0);
  visit("prefill_spread", r.prefill_spread, 4);
  visit("gen_runs", r.gen_runs, 0);
  visit("gen_spread", r.gen_spread, 4);
  visit("prefill_tflops", r.prefill_tflops, 3);
  visit("prefill_roof_share", r.prefill_roof_share, 4);
  visit("gen_bytes", r.gen_bytes, 0);
  visit("gen_gbps", r.gen_gbps, 2);
  visit("gen_roof_share", r.gen_roof_share, 4);
  visit("clock_mhz", r.clock_mhz, 0);
  visit("power_watts", r.power_watts, 0);
  visit("throttled", r.throttled, 0);
  visit("load_s", r.load_s, 3);
  visit("extra_bytes", r.extra_bytes, 0);
  visit("copy_gbps", r.copy_gbps, 1);
  visit("upload_gbps", r.upload_gbps, 1);
  visit("clock_max_mhz", r.clock_max_mhz, 0);
  visit("peak_tflops", r.peak_tflops, 1);
  visit("backend", r.backend, 0);
  visit("device", r.device, 0);
  visit("driver", r.driver, 0);
  visit("model", r.model, 0);
}

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string out;
  out += '"';
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  out += '"';
  return out;
}

// The fields of one line; quotes may hold commas, and a doubled quote is one.
std::vector<std::string> split(std::string_view line) {
  std::vector<std::string> fields(1);
  bool inside = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (c == '"' && inside && i + 1 < line.size() && line[i + 1] == '"') {
      fields.back() += '"';
      ++i;
    } else if (c == '"') {
      inside = !inside;
    } else if (c == ',' && !inside) {
      fields.emplace_back();
    } else if (c != '\r') {
      fields.back() += c;
    }
  }
  return fields;
}

template <class Value>
bool read_value(const std::string& text, Value& value) {
  if constexpr (std::is_same_v<Value, std::string>) {
    value = text;
    return true;
  } else {
    if (text.empty()) return true;
    const char* end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data(), end, value);
    return error == std::errc() && at == end;
  }
}

[[noreturn]] void refuse(std::string_view name, std::size_t line, std::string_view what) {
  throw Error(ErrorCode::kBadFormat, fmt::format("{}, line {}: {}", name, line, what));
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

}  // namespace

std::string csv_header() {
  TableRow row;
  std::string line;
  each_column(row, [&](std::string_view name, const auto&, int) {
    if (!line.empty()) line += ',';
    line += name;
  });
  line += '\n';
  return line;
}

std::string csv_line(const TableRow& row) {
  std::string line;
  const auto add = [&](const std::string& text) {
    line += text;
    line += ',';
  };
  each_column(row, [&](std::string_view, const auto& value, int digits) {
    using Value = std::decay_t<decltype(value)>;
    if constexpr (std::is_same_v<Value, std::string>)
      add(quoted(value));
    else if constexpr (std::is_floating_point_v<Value>)
      add(fmt::format("{:.{}f}", value, digits));
    else
      add(fmt::format("{}", value));
  });
  line.back() = '\n';
  return line;
}

std::vector<TableRow> parse_csv(std::string_view text, std::string_view name) {
  const std::vector<std::string_view> lines = lines_of(text);
  if (lines.empty()) refuse(name, 1, "the table is empty");
  const std::vector<std::string> header = split(lines.front());
  for (const std::string_view needed : {"ctx_tokens", "prefill_tps", "gen_tps"}) {
    if (std::find(header.begin(), header.end(), needed) == header.end())
      refuse(name, 1, fmt::format("no column {}; expected a table of ds4-bench", needed));
  }
  std::vector<TableRow> rows;
  for (std::size_t i = 1; i < lines.size(); ++i) {
    if (lines[i].empty()) continue;
    const std::vector<std::string> fields = split(lines[i]);
    if (fields.size() != header.size())
      refuse(name, i + 1,
             fmt::format("{} fields, the header has {}", fields.size(), header.size()));
    TableRow row;
    each_column(row, [&](std::string_view column, auto& value, int) {
      const auto found = std::find(header.begin(), header.end(), column);
      if (found == header.end()) return;
      const std::string& field = fields[static_cast<std::size_t>(found - header.begin())];
      if (!read_value(field, value))
        refuse(name, i + 1, fmt::format("{} is '{}', which is no number", column, field));
    });
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<TableRow> read_csv(const std::filesystem::path& path) {
  return parse_csv(read_text_file(path, kTableBytesMax), path.string());
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double spread(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return (*high - *low) / median(values);
}

}  // namespace ds4::bench
