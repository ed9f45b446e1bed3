#include "host.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include "../abi/args.h"

#if defined(__linux__)
#include <sched.h>
#elif defined(__APPLE__)
#include <mach/mach.h>
#include <sys/sysctl.h>
#endif

namespace gsa::cpu {

namespace {

constexpr int kMaxThreads = 1024;
constexpr uint64_t kNoLimit = UINT64_MAX;

// An integer in [1, kMaxThreads] or 0.
int parse_threads(const char* text) {
  char* end = nullptr;
  errno = 0;
  const long value = std::strtol(text, &end, 10);
  const bool whole = end != text && *end == '\0' && errno == 0;
  return whole && value >= 1 && value <= kMaxThreads ? static_cast<int>(value) : 0;
}

#if defined(__linux__)

// First word of a file as a number; kNoLimit for "max" and for a file that is not there.
uint64_t read_number(const std::string& path) {
  std::ifstream file(path);
  uint64_t value;
  return file >> value ? value : kNoLimit;
}

// The value after `key` in a file of "key value" lines.
uint64_t read_field(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    uint64_t value;
    if (words >> name >> value && name == key) return value;
  }
  return kNoLimit;
}

// This process' folder under a mounted hierarchy and all its parents, the innermost first: a limit may stand
// on any. `controller` is "" for version 2, else the version 1 controller.
std::vector<std::string> cgroup_folders(const std::string& controller) {
  std::ifstream file("/proc/self/cgroup");
  const std::string mount = controller.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controller;
  std::string line;
  while (std::getline(file, line)) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    if (controllers.find("," + controller + ",") == std::string::npos) continue;
    std::vector<std::string> folders;
    std::string path = line.substr(second + 1);
    while (path.size() > 1) {
      folders.push_back(mount + path);
      path.resize(path.rfind('/'));
    }
    folders.push_back(mount);
    return folders;
  }
  return {};
}

struct MemoryGroup {
  uint64_t limit = kNoLimit;
  uint64_t available = kNoLimit;
};

MemoryGroup memory_group() {
  MemoryGroup group;
  const auto consider = [&](const std::string& folder, const char* limit_file, const char* usage_file,
                            const char* cache_key) {
    const uint64_t limit = read_number(folder + "/" + limit_file);
    const uint64_t usage = read_number(folder + "/" + usage_file);
    if (limit == kNoLimit || usage == kNoLimit) return;
    const uint64_t cache = read_field(folder + "/memory.stat", cache_key);
    const uint64_t held = cache == kNoLimit ? usage : usage - std::min(usage, cache);
    group.limit = std::min(group.limit, limit);
    group.available = std::min(group.available, limit - std::min(limit, held));
  };
  for (const std::string& folder : cgroup_folders(""))
    consider(folder, "memory.max", "memory.current", "inactive_file");
  for (const std::string& folder : cgroup_folders("memory"))
    consider(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file");
  return group;
}

int quota_processors() {
  double least = kMaxThreads;
  const auto consider = [&](double quota, double period) {
    if (quota > 0 && period > 0) least = std::min(least, std::ceil(quota / period));
  };
  for (const std::string& folder : cgroup_folders("")) {
    std::ifstream file(folder + "/cpu.max");
    double quota, period;
    if (file >> quota >> period) consider(quota, period);  // "max 100000" does not parse: no limit
  }
  for (const std::string& folder : cgroup_folders("cpu")) {
    std::ifstream quota_file(folder + "/cpu.cfs_quota_us"), period_file(folder + "/cpu.cfs_period_us");
    double quota, period;
    if (quota_file >> quota && period_file >> period) consider(quota, period);
  }
  return std::max(1, static_cast<int>(least));
}

int affinity_processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::thread::hardware_concurrency());
}

uint64_t physical_bytes() {
  return static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

#endif  // __linux__

}  // namespace

#if defined(__linux__)

int available_processors() {
  return std::clamp(std::min(affinity_processors(), quota_processors()), 1, kMaxThreads);
}

uint64_t memory_limit_bytes() { return std::min(physical_bytes(), memory_group().limit); }

uint64_t available_memory_bytes() {
  const uint64_t kilobytes = read_field("/proc/meminfo", "MemAvailable:");
  const uint64_t system = kilobytes == kNoLimit ? physical_bytes() : kilobytes * 1024;
  return std::min(system, memory_group().available);
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.compare(0, 10, "model name") != 0) continue;
    const size_t start = line.find_first_not_of(" \t", line.find(':') + 1);
    if (start != std::string::npos) return line.substr(start);
  }
  return "CPU";
}

#elif defined(__APPLE__)

int available_processors() {
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
}

uint64_t memory_limit_bytes() {
  uint64_t bytes = 0;
  size_t size = sizeof bytes;
  return sysctlbyname("hw.memsize", &bytes, &size, nullptr, 0) == 0 ? bytes : kNoLimit;
}

uint64_t available_memory_bytes() {
  vm_statistics64_data_t pages;
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  if (host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages), &count) !=
      KERN_SUCCESS)
    return memory_limit_bytes();
  const uint64_t reclaimable =
      uint64_t{pages.free_count} + pages.inactive_count + pages.purgeable_count + pages.speculative_count;
  return reclaimable * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

std::string processor_name() {
  char name[128] = "";
  size_t size = sizeof name;
  return sysctlbyname("machdep.cpu.brand_string", name, &size, nullptr, 0) == 0 ? name : "CPU";
}

#endif

int default_thread_count() {
  const char* text = std::getenv("FLASH_GSA_THREADS");
  const int wanted = text ? parse_threads(text) : 0;
  return wanted ? wanted : available_processors();
}

void check_environment() {
  const char* text = std::getenv("FLASH_GSA_THREADS");
  if (text && parse_threads(text) == 0)
    fail(GSA_INVALID_ARGUMENT,
         "Expected an integer from 1 to %d for FLASH_GSA_THREADS but received \"%.40s\"", kMaxThreads, text);
}

}  // namespace gsa::cpu
