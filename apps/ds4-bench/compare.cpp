#include "compare.h"

#include <cmath>

#include <fmt/format.h>

#include "base/error.h"

namespace ds4::bench {

namespace {

// A rate in both tables.
struct Pair {
  double a = 0;
  double b = 0;
  double spread = 0;
  bool known() const { return a > 0 && b > 0; }
  double ratio() const { return b / a; }
};

// Ratios of one column, for their mean.
class Means {
 public:
  void add(const Pair& pair) {
    if (!pair.known()) return;
    sum_ += std::log(pair.ratio());
    ++count_;
  }
  std::string text() const {
    return count_ == 0 ? "-" : fmt::format("{:.3f}", std::exp(sum_ / count_));
  }

 private:
  double sum_ = 0;
  int count_ = 0;
};

double decode_rate(const TableRow& row) {
  return row.gen_steady_tps > 0 ? row.gen_steady_tps : row.gen_tps;
}

std::string columns(const Pair& pair) {
  if (!pair.known()) return fmt::format("{:>10}{:>10}{:>9} ", "-", "-", "-");
  const bool inside = std::fabs(pair.ratio() - 1) <= pair.spread;
  return fmt::format("{:>10.1f}{:>10.1f}{:>9.3f}{}", pair.a, pair.b, pair.ratio(),
                     inside ? '~' : ' ');
}

std::string description(char letter, const TableRow& row) {
  return fmt::format("{}: {}{}{}, {}\n", letter, row.model, row.model.empty() ? "" : " on ",
                     row.device.empty() ? row.backend : row.device,
                     row.driver.empty() ? "driver unknown" : row.driver);
}

const TableRow* find_like(const std::vector<TableRow>& rows, const TableRow& like) {
  for (const TableRow& row : rows)
    if (row.ctx_tokens == like.ctx_tokens && row.batch == like.batch) return &row;
  return nullptr;
}

}  // namespace

std::string compare_tables(const std::vector<TableRow>& a, const std::vector<TableRow>& b) {
  std::string lines;
  Means prefill;
  Means decode;
  const TableRow* first = nullptr;
  for (const TableRow& row : a) {
    const TableRow* other = find_like(b, row);
    if (other == nullptr) continue;
    if (first == nullptr) first = other;
    const Pair p{row.prefill_tps, other->prefill_tps,
                 std::max(row.prefill_spread, other->prefill_spread)};
    const Pair d{decode_rate(row), decode_rate(*other),
                 std::max(row.gen_spread, other->gen_spread)};
    prefill.add(p);
    decode.add(d);
    lines += fmt::format("{:>8}{:>6}  {} {}\n", row.ctx_tokens, row.batch, columns(p), columns(d));
  }
  if (first == nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                "the two tables share no line: none has the same ctx_tokens and batch");
  }
  std::string text = description('A', a.front()) + description('B', *first);
  text += fmt::format("{:>14}  {:^29}  {:^29}\n", "", "prefill t/s", "decode t/s");
  text += fmt::format("{:>8}{:>6}  {:>10}{:>10}{:>9}  {:>10}{:>10}{:>9}\n", "context", "users", "A",
                      "B", "B / A", "A", "B", "B / A");
  text += lines;
  text += fmt::format("geometric mean of B / A: prefill {}, decode {}\n", prefill.text(),
                      decode.text());
  if (const Pair load{a.front().load_s, first->load_s, 0}; load.known())
    text += fmt::format("load: {:.2f} s, {:.2f} s, B / A {:.3f}\n", load.a, load.b, load.ratio());
  return text + "~: the difference lies inside the spread of the runs\n";
}

}  // namespace ds4::bench
