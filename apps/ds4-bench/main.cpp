// ds4-bench: how fast a model runs, against what the machine could do.
#include "base/error.h"
#include "common/command_line.h"
#include "common/fence.h"
#include "options.h"
#include "sweep.h"

namespace ds4::bench {
namespace {

int run(int argc, char** argv) {
  const ParseResult parsed = parse_options(argc, argv);
  if (!parsed.options) return app::end_early(parsed.text, parsed.exit_code);
  if (parsed.options->compare.empty())
    run_sweep(*parsed.options);
  else
    run_compare(*parsed.options);
  return 0;
}

}  // namespace
}  // namespace ds4::bench

int main(int argc, char** argv) {
  return ds4::app::run_fenced("ds4-bench", ds4::ErrorCode::kInvalidArgument,
                              [&] { return ds4::bench::run(argc, argv); });
}
