#include "base/topology.h"

#include <fstream>

#include <gtest/gtest.h>

namespace ds4 {
namespace {

TEST(Topology, ReadsKernelLists) {
  EXPECT_EQ(parse_cpu_list("0-3,8,10-11"), (CpuList{0, 1, 2, 3, 8, 10, 11}));
  EXPECT_EQ(parse_cpu_list("5"), CpuList{5});
  EXPECT_EQ(parse_cpu_list(""), CpuList{});
  EXPECT_EQ(parse_cpu_list("none"), CpuList{});
}

TEST(Topology, NodesInOrderOfTheirNumberWithoutEmptyOnes) {
  const std::filesystem::path root =
      std::filesystem::path(testing::TempDir()) / "ds4_topology_test";
  std::filesystem::remove_all(root);
  const auto add = [&](const char* node, const char* cpus) {
    std::filesystem::create_directories(root / node);
    std::ofstream(root / node / "cpulist") << cpus << "\n";
  };
  add("node10", "6-7");
  add("node2", "2-3");
  add("node0", "0-1");
  add("node1", "");  // memory alone
  add("power", "0-7");
  EXPECT_EQ(memory_nodes(root), (std::vector<CpuList>{{0, 1}, {2, 3}, {6, 7}}));
  EXPECT_TRUE(memory_nodes(root / "absent").empty());
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace ds4
