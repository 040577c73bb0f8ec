#include "plot.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>

#include <fmt/format.h>

namespace ds4::bench {

namespace {

constexpr double kWidth = 960;
constexpr double kHeight = 440;
constexpr double kTop = 112;
constexpr double kBottom = 376;
constexpr double kPanelWidth = 384;
constexpr double kLeft[2] = {72, 552};
// Told apart by everyone, also in grey: blue, orange, green, purple, brown, cyan.
constexpr const char* kColours[] = {"#1f6fb4", "#d9730d", "#3a8f4d",
                                    "#7b4fa6", "#8a5a44", "#1797a6"};

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else
      out += c;
  }
  return out;
}

std::string context_text(std::uint32_t tokens) {
  return tokens >= 1024 && tokens % 1024 == 0 ? fmt::format("{}k", tokens / 1024)
                                              : fmt::format("{}", tokens);
}

std::string rate_text(double rate) {
  return rate >= 100 ? fmt::format("{:.0f}", rate) : fmt::format("{:.1f}", rate);
}

// A round step that cuts [0, highest] into 3 to 6 parts.
double tick_step(double highest) {
  const double rough = highest / 5;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (rough <= factor * power) return factor * power;
  return 10 * power;
}

// One of the two pictures: where contexts and rates fall.
class Panel {
 public:
  Panel(double left, double TableRow::*rate, const std::vector<PlotSeries>& series)
      : left_(left),
        rate_(rate),
        series_(series) {
    for (const PlotSeries& s : series) {
      for (const TableRow& row : s.rows) {
        if (!(row.*rate > 0) || row.ctx_tokens == 0) continue;
        contexts_.insert(row.ctx_tokens);
        highest_ = std::max(highest_, row.*rate);
      }
    }
  }

  bool empty() const { return contexts_.empty(); }
  double x(std::uint32_t context) const {
    const double low = std::log2(*contexts_.begin());
    const double high = std::log2(*contexts_.rbegin());
    const double share = high > low ? (std::log2(context) - low) / (high - low) : 0.5;
    return left_ + 16 + share * (kPanelWidth - 32);
  }
  double y(double rate) const { return kBottom - rate / ceiling() * (kBottom - kTop); }
  double ceiling() const {
    const double step = tick_step(highest_);
    return step * std::ceil(highest_ * 1.05 / step);
  }

  std::string axes(std::string_view name) const;
  std::string line(const PlotSeries& series, const char* colour) const;

 private:
  std::string context_labels() const;
  bool is_free_above(const TableRow& row) const;

  double left_;
  double TableRow::*rate_;
  const std::vector<PlotSeries>& series_;
  std::set<std::uint32_t> contexts_;
  double highest_ = 0;
};

std::string Panel::axes(std::string_view name) const {
  std::string out =
      fmt::format("<text x=\"{}\" y=\"{}\" class=\"name\">{}</text>\n", left_, kTop - 16, name);
  if (empty()) {
    return out + fmt::format("<text x=\"{}\" y=\"{}\" class=\"tick\">not measured</text>\n", left_,
                             (kTop + kBottom) / 2);
  }
  const double step = tick_step(highest_);
  const auto steps = static_cast<int>(std::lround(ceiling() / step));
  for (int i = 0; i <= steps; ++i) {
    const double value = i * step;
    out += fmt::format(
        "<line x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" class=\"{3}\"/>"
        "<text x=\"{4}\" y=\"{5:.1f}\" class=\"tick\" text-anchor=\"end\">{6:g}</text>\n",
        left_, left_ + kPanelWidth, y(value), i == 0 ? "axis" : "grid", left_ - 8, y(value) + 4,
        value);
  }
  return out + context_labels();
}

// Labels that would run into the one before them are left out.
std::string Panel::context_labels() const {
  std::string out;
  double free_from = 0;
  for (const std::uint32_t context : contexts_) {
    const std::string text = context_text(context);
    const double half = 4.0 * static_cast<double>(text.size());
    if (x(context) - half < free_from) continue;
    free_from = x(context) + half + 6;
    out +=
        fmt::format("<text x=\"{:.1f}\" y=\"{}\" class=\"tick\" text-anchor=\"middle\">{}</text>\n",
                    x(context), kBottom + 20, text);
  }
  return out + fmt::format(
                   "<text x=\"{}\" y=\"{}\" class=\"tick\" text-anchor=\"middle\">context, "
                   "tokens</text>\n",
                   left_ + kPanelWidth / 2, kBottom + 40);
}

// Whether a value fits above its point without meeting another series' point or value.
bool Panel::is_free_above(const TableRow& row) const {
  constexpr double kValueHeight = 30;
  for (const PlotSeries& other : series_) {
    for (const TableRow& o : other.rows) {
      const double distance = y(row.*rate_) - y(o.*rate_);
      if (o.ctx_tokens == row.ctx_tokens && distance > 0 && distance < kValueHeight) return false;
    }
  }
  return true;
}

std::string Panel::line(const PlotSeries& series, const char* colour) const {
  std::string path;
  std::string marks;
  double free_from = 0;
  for (const TableRow& row : series.rows) {
    if (!(row.*rate_ > 0) || row.ctx_tokens == 0) continue;
    const double at = x(row.ctx_tokens);
    const double up = y(row.*rate_);
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : " L", at, up);
    marks +=
        fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" fill=\"{}\"/>", at, up, colour);
    const std::string text = rate_text(row.*rate_);
    const double half = 4.0 * static_cast<double>(text.size());
    if (at - half < free_from) continue;
    free_from = at + half + 4;
    marks += fmt::format(
        "<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"value\" style=\"fill:{}\" "
        "text-anchor=\"middle\">{}</text>\n",
        at, is_free_above(row) ? up - 9 : up + 18, colour, text);
  }
  if (path.empty()) return {};
  return fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n", path,
                     colour) +
         marks;
}

std::string legend(const std::vector<PlotSeries>& series) {
  if (series.size() < 2) return {};
  std::string out;
  double at = kLeft[0];
  for (std::size_t i = 0; i < series.size(); ++i) {
    out += fmt::format(
        "<rect x=\"{:.1f}\" y=\"64\" width=\"18\" height=\"3\" fill=\"{}\"/>"
        "<text x=\"{:.1f}\" y=\"70\" class=\"tick\">{}</text>\n",
        at, kColours[i % std::size(kColours)], at + 24, escaped(series[i].label));
    at += 44 + 7.2 * static_cast<double>(series[i].label.size());
  }
  return out;
}

constexpr std::string_view kStyle =
    "<style>text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;"
    "fill:#333}.title{font-size:18px;font-weight:600}.name{font-size:14px;font-weight:600}"
    ".sub,.tick{font-size:12px;fill:#666}.value{font-size:11px}"
    ".grid{stroke:#e8e8e8}.axis{stroke:#999}</style>\n";

}  // namespace

std::vector<PlotSeries> series_by_users(const std::vector<TableRow>& rows,
                                        const std::string& prefix) {
  std::set<std::uint32_t> counts;
  for (const TableRow& row : rows)
    counts.insert(row.batch);
  std::vector<PlotSeries> series;
  for (const std::uint32_t users : counts) {
    PlotSeries s{.label = fmt::format("{}{} user{}", prefix, users, users == 1 ? "" : "s"),
                 .rows = {}};
    std::copy_if(rows.begin(), rows.end(), std::back_inserter(s.rows),
                 [users](const TableRow& row) { return row.batch == users; });
    std::sort(s.rows.begin(), s.rows.end(),
              [](const TableRow& a, const TableRow& b) { return a.ctx_tokens < b.ctx_tokens; });
    // Older tables have one rate for all tokens.
    for (TableRow& row : s.rows)
      if (row.gen_steady_tps <= 0) row.gen_steady_tps = row.gen_tps;
    series.push_back(std::move(s));
  }
  return series;
}

std::string plot_svg(const std::string& title,
                     const std::string& subtitle,
                     const std::vector<PlotSeries>& series) {
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
      "height=\"{1}\" role=\"img\">\n<title>{2}</title>\n",
      kWidth, kHeight, escaped(title));
  out += kStyle;
  out += fmt::format("<rect width=\"{}\" height=\"{}\" fill=\"#fff\"/>\n", kWidth, kHeight);
  out += fmt::format(
      "<text x=\"24\" y=\"30\" class=\"title\">{}</text>\n"
      "<text x=\"24\" y=\"49\" class=\"sub\">{}</text>\n",
      escaped(title), escaped(subtitle));
  out += legend(series);
  struct Half {
    const char* name;
    double TableRow::*rate;
  };
  const Half halves[2] = {{"Reading the prompt, tokens/s", &TableRow::prefill_tps},
                          {"Decoding, tokens/s of all users", &TableRow::gen_steady_tps}};
  for (int side = 0; side < 2; ++side) {
    const Panel panel(kLeft[side], halves[side].rate, series);
    out += panel.axes(halves[side].name);
    for (std::size_t i = 0; i < series.size() && !panel.empty(); ++i)
      out += panel.line(series[i], kColours[i % std::size(kColours)]);
  }
  return out + "</svg>\n";
}

}  // namespace ds4::bench
