#include "base/topology.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <sched.h>

namespace ds4 {

CpuList parse_cpu_list(std::string_view text) {
  CpuList cpus;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end && *at >= '0' && *at <= '9') {
    int first = 0;
    at = std::from_chars(at, end, first).ptr;
    int last = first;
    if (at != end && *at == '-') at = std::from_chars(at + 1, end, last).ptr;
    for (int cpu = first; cpu <= std::min(last, CPU_SETSIZE - 1); ++cpu)
      cpus.push_back(cpu);
    if (at != end && *at == ',') ++at;
  }
  return cpus;
}

std::vector<CpuList> memory_nodes(const std::filesystem::path& directory) {
  std::vector<std::pair<int, CpuList>> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    int number = 0;
    if (name.rfind("node", 0) != 0 ||
        std::from_chars(name.data() + 4, name.data() + name.size(), number).ec != std::errc{})
      continue;
    std::ifstream file(entry.path() / "cpulist");
    std::string line;
    std::getline(file, line);
    CpuList cpus = parse_cpu_list(line);
    if (!cpus.empty()) found.emplace_back(number, std::move(cpus));
  }
  std::sort(found.begin(), found.end());
  std::vector<CpuList> nodes;
  nodes.reserve(found.size());
  for (auto& [number, cpus] : found)
    nodes.push_back(std::move(cpus));
  return nodes;
}

std::vector<CpuList> usable_memory_nodes() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return {};
  std::vector<CpuList> nodes = memory_nodes("/sys/devices/system/node");
  for (CpuList& cpus : nodes)
    std::erase_if(cpus,
                  [&](int cpu) { return !CPU_ISSET(static_cast<std::size_t>(cpu), &allowed); });
  std::erase_if(nodes, [](const CpuList& cpus) { return cpus.empty(); });
  return nodes;
}

}  // namespace ds4
