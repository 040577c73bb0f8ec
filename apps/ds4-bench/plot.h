#pragma once
#include <string>
#include <vector>

#include "table.h"

namespace ds4::bench {

// One line of a plot.
struct PlotSeries {
  std::string label;
  std::vector<TableRow> rows;  // ascending contexts
};

// One series for every number of users in `rows`; labels begin with `prefix`.
std::vector<PlotSeries> series_by_users(const std::vector<TableRow>& rows,
                                        const std::string& prefix);

// A picture of rates against context as SVG text of 960 x 440: prefill on the left, decoding on
// the right, contexts on a logarithmic axis, every point with its value.  Needs nothing from
// outside the file.  `series` may be empty.
std::string plot_svg(const std::string& title,
                     const std::string& subtitle,
                     const std::vector<PlotSeries>& series);

}  // namespace ds4::bench
