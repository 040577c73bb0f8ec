#include "sweep.h"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "common/load_progress.h"
#include "common/output.h"
#include "compare.h"
#include "plot.h"
#include "prompt.h"
#include "roofline.h"
#include "runner.h"

namespace ds4::bench {

namespace {

using app::write_note;

constexpr double kGibi = 1024.0 * 1024.0 * 1024.0;

void write_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFileWriter file(path);
  file.write(text);
  file.commit();
}

std::vector<double> rates(const std::vector<double>& seconds, double tokens) {
  std::vector<double> out;
  out.reserve(seconds.size());
  for (const double s : seconds)
    out.push_back(tokens / s);
  return out;
}

// A model on a machine, ready to be measured.
class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        machine_(report_machine(options.open)) {
    note_machine();
    if (options.warm_weights) MappedFile::touch(MappedFile(options.open.model).bytes());
    const auto start = std::chrono::steady_clock::now();
    opened_ = open_executor(options.open);
    common_.load_s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    fill_common();
  }

  // All contexts with one number of users; calls take(row) for each.
  template <class Take>
  void measure(std::uint32_t users, const Take& take) {
    Executor& executor = *opened_.executor;
    if (users > executor.info().rows_max) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("--batch {}: this machine's batches have at most {} rows", users,
                              executor.info().rows_max));
    }
    const Prompt prompt = make_prompt();
    Runner runner(executor, prompt,
                  {.users = users,
                   .context = options_.context,
                   .decode_tokens = options_.decode_tokens,
                   .runs = options_.runs,
                   .run_seconds_max = options_.run_seconds_max,
                   .end_token = TokenId{options_.end_token},
                   .teacher_forced = options_.teacher_forced,
                   .power_percent = options_.power_percent,
                   .logits_directory = options_.logits_directory});
    for (const std::uint32_t frontier : options_.frontiers)
      take(row_of(runner.measure(frontier), users));
  }

 private:
  void note_machine() const {
    write_note(fmt::format("{}; {}; copies {:.0f} GB/s", machine_.device, machine_.driver,
                           machine_.copy_gbps));
    if (machine_.upload_gbps > 0)
      write_note(fmt::format(", uploads {:.1f} GB/s", machine_.upload_gbps));
    write_note("\n");
  }

  Prompt make_prompt() const {
    const bool chat = !options_.chat_prompt_file.empty();
    const PromptSource source{.file = chat ? options_.chat_prompt_file : options_.prompt_file,
                              .chat = chat,
                              .system = options_.system};
    if (source.file.empty()) return Prompt(opened_.executor->config().vocab_size);
    return read_prompt(options_.open.model, source, options_.frontiers.back());
  }

  // What every line repeats, so that a line stands alone.
  void fill_common() {
    const ExecutorInfo& info = opened_.executor->info();
    common_.copy_gbps = machine_.copy_gbps;
    common_.upload_gbps = machine_.upload_gbps;
    common_.clock_max_mhz = machine_.clock_max_mhz;
    common_.peak_tflops = machine_.peak_tflops;
    common_.backend = info.backend;
    common_.device = info.device;
    common_.driver = machine_.driver;
    common_.model = options_.open.model.filename().string();
    write_note(
        fmt::format("{} on {}: ready in {:.2f} s\n", common_.model, info.backend, common_.load_s));
    for (const MemoryItem& item : opened_.executor->memory())
      write_note(fmt::format("  {:<10}{:>9.2f} GiB{}\n", item.name,
                             static_cast<double>(item.bytes) / kGibi,
                             item.mapped ? ", mapped from the file" : ""));
  }

  // Of the device where it says what is in use, which counts contexts and recordings too; else what
  // the executor allocated.
  double extra_bytes(const MachineState& state) const {
    const auto weights = static_cast<double>(opened_.weight_bytes);
    if (state.used_bytes > weights) return state.used_bytes - weights;
    double allocated = 0;
    for (const MemoryItem& item : opened_.executor->memory())
      if (!item.mapped)
        allocated += static_cast<double>(item.bytes) - (item.name == "weights" ? weights : 0);
    return allocated;
  }

  TableRow row_of(const Measurement& m, std::uint32_t users) const {
    const MachineState state = machine_state(options_.open);
    TableRow row = common_;
    row.ctx_tokens = m.context;
    row.batch = users;
    row.kvcache_bytes = m.state_bytes;
    row.clock_mhz = state.clock_mhz;
    row.power_watts = state.power_watts;
    row.throttled = state.throttled;
    row.extra_bytes = static_cast<std::uint64_t>(std::max(0.0, extra_bytes(state)));
    fill_prefill(m, users, row);
    if (!m.decode.empty()) fill_decode(m, users, row);
    return row;
  }

  void fill_prefill(const Measurement& m, std::uint32_t users, TableRow& row) const {
    const Roofline roof(opened_.executor->config(), opened_.executor->layout(), opened_.traffic,
                        machine_);
    const double seconds = median(m.prefill_s);
    row.prefill_tokens = m.context - m.prefill_from;
    const auto all = rates(m.prefill_s, static_cast<double>(row.prefill_tokens) * users);
    row.prefill_runs = static_cast<std::uint32_t>(all.size());
    row.prefill_tps = median(all);
    row.prefill_spread = spread(all);
    row.prefill_tflops = roof.prefill_flops(m.prefill_from, m.context) * users / seconds * 1e-12;
    row.prefill_roof_share = roof.prefill_share(m.prefill_from, m.context,
                                                opened_.executor->info().rows_max, seconds / users);
  }

  void fill_decode(const Measurement& m, std::uint32_t users, TableRow& row) const {
    const Roofline roof(opened_.executor->config(), opened_.executor->layout(), opened_.traffic,
                        machine_);
    std::vector<double> first_s;
    std::vector<double> rest_s;
    std::vector<double> whole_s;
    for (const DecodeTime& time : m.decode) {
      first_s.push_back(time.first_s);
      rest_s.push_back(time.rest_s);
      whole_s.push_back(time.first_s + time.rest_s);
    }
    row.gen_tokens = options_.decode_tokens;
    row.gen_steady_tokens = row.gen_tokens - 1;
    row.gen_runs = static_cast<std::uint32_t>(m.decode.size());
    const auto all = rates(whole_s, static_cast<double>(row.gen_tokens) * users);
    row.gen_tps = median(all);
    row.gen_spread = spread(all);
    row.gen_first_ms = median(first_s) * 1e3;
    double step_s = median(whole_s) / row.gen_tokens;
    if (row.gen_steady_tokens > 0) {
      const auto steady = rates(rest_s, static_cast<double>(row.gen_steady_tokens) * users);
      row.gen_steady_tps = median(steady);
      row.gen_spread = spread(steady);
      step_s = median(rest_s) / row.gen_steady_tokens;
    }
    const double bytes = roof.decode_bytes(m.context + row.gen_tokens / 2, users);
    row.gen_bytes = bytes / users;
    row.gen_gbps = bytes / step_s * 1e-9;
    row.gen_roof_share = roof.decode_share(bytes, step_s);
  }

  const Options& options_;
  MachineReport machine_;
  OpenedExecutor opened_;
  TableRow common_;
};

std::string subtitle_of(const TableRow& row) {
  return fmt::format("{}; {}; copies {:.0f} GB/s; load {:.1f} s", row.device, row.driver,
                     row.copy_gbps, row.load_s);
}

}  // namespace

void run_sweep(const Options& request) {
  Options options = request;
  options.open.log = [](LogLevel, std::string_view line) { write_note(fmt::format("{}\n", line)); };
  options.open.load_progress = app::show_loading(app::Terminal::standard_error());
  Bench bench(options);
  std::string table = csv_header();
  app::write_out(table);
  std::vector<TableRow> rows;
  for (const std::uint32_t users : options.batches) {
    bench.measure(users, [&](const TableRow& row) {
      const std::string line = csv_line(row);
      app::write_out(line);
      table += line;
      rows.push_back(row);
    });
  }
  if (!options.csv.empty()) write_file(options.csv, table);
  if (options.plot.empty()) return;
  write_file(options.plot, plot_svg(options.title.empty() ? rows.front().model : options.title,
                                    subtitle_of(rows.front()), series_by_users(rows, "")));
}

void run_compare(const Options& options) {
  const std::vector<TableRow> a = read_csv(options.compare[0]);
  const std::vector<TableRow> b = read_csv(options.compare[1]);
  app::write_out(compare_tables(a, b));
  if (options.plot.empty()) return;
  std::vector<PlotSeries> series = series_by_users(a, "A, ");
  for (PlotSeries& more : series_by_users(b, "B, "))
    series.push_back(std::move(more));
  const std::string names =
      fmt::format("A: {}, B: {}", options.compare[0].string(), options.compare[1].string());
  write_file(options.plot, plot_svg(options.title.empty() ? names : options.title,
                                    subtitle_of(b.front()), series));
}

}  // namespace ds4::bench
