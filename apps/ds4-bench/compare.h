#pragma once
#include <string>
#include <vector>

#include "table.h"

namespace ds4::bench {

// Two tables side by side: for every (context, users) that both have, rates and the ratio B / A,
// marked where the difference lies inside the spread of either; then the geometric means.  Throws
// Error(kInvalidArgument) when they share no line.
std::string compare_tables(const std::vector<TableRow>& a, const std::vector<TableRow>& b);

}  // namespace ds4::bench
