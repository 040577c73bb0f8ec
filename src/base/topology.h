#pragma once
#include <filesystem>
#include <string_view>
#include <vector>

namespace ds4 {

// CPU numbers, ascending.
using CpuList = std::vector<int>;

// The numbers of a kernel list such as "0-3,8,10-11"; what is not one counts as empty.
CpuList parse_cpu_list(std::string_view text);

// The CPUs of every memory node that has some, in order of node number, from a directory laid out
// as /sys/devices/system/node.  Empty when there is none to read.
std::vector<CpuList> memory_nodes(const std::filesystem::path& directory);

// The memory nodes of this machine with the CPUs that this process may run on (its affinity mask);
// nodes that have none of them are left out.
std::vector<CpuList> usable_memory_nodes();

}  // namespace ds4
