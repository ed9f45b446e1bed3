#include "device.h"

#include <cmath>
#include <cstring>

#include "blas.h"
#include "host.h"
#include "parallel.h"
#include "simd/isa.h"

namespace gsa::cpu {

namespace {

struct Option {
  const char* name;
  double least, most;
  double (*get)(gsa_device&);
  void (*set)(gsa_device&, double);
};

constexpr double kMostBytes = 9007199254740992.0;  // 2^53: what a JavaScript number carries exactly

// clang-format off
const Option kOptions[] = {
    {"threads", 1, 1024,
     [](gsa_device&) { return static_cast<double>(thread_count()); },
     [](gsa_device&, double value) { set_thread_count(static_cast<int>(value)); }},
    {"memory_limit", 0, kMostBytes,
     [](gsa_device& device) { return static_cast<double>(device.allocator.memory_limit()); },
     [](gsa_device& device, double value) { device.allocator.set_memory_limit(static_cast<uint64_t>(value)); }},
    {"cache_limit", 0, kMostBytes,
     [](gsa_device& device) { return static_cast<double>(device.allocator.cache_limit()); },
     [](gsa_device& device, double value) { device.allocator.set_cache_limit(static_cast<uint64_t>(value)); }},
    {"blas", 0, 1,
     [](gsa_device&) { return blas_allowed() && blas() ? 1.0 : 0.0; },
     [](gsa_device&, double value) { allow_blas(value != 0); }},
    {"poison", 0, 1,
     [](gsa_device& device) { return device.allocator.poison() ? 1.0 : 0.0; },
     [](gsa_device& device, double value) { device.allocator.set_poison(value != 0); }},
};
// Only while memory is debugged: setting it overruns a block of that many bytes, to show that it is noticed.
const Option kOverrun = {"debug_overrun", 1, kMostBytes,
                         [](gsa_device&) { return 0.0; },
                         [](gsa_device& device, double value) { device.allocator.overrun(static_cast<uint64_t>(value)); }};
// clang-format on

const Option& find_option(const gsa_device& device, const char* name) {
  if (device.allocator.debugging() && std::strcmp(name, kOverrun.name) == 0) return kOverrun;
  std::string known;
  for (const Option& option : kOptions) {
    if (std::strcmp(option.name, name) == 0) return option;
    known += (known.empty() ? "" : ", ") + std::string(option.name);
  }
  fail(GSA_INVALID_ARGUMENT, "Expected one of %s for the option's name but received \"%.60s\"", known.c_str(),
       name);
}

}  // namespace

gsa_device& the_device() {
  static gsa_device* const device = [] {
    check_environment();
    check_blas();
    return new gsa_device();
  }();
  return *device;
}

gsa_device_info describe_device() {
  gsa_device_info info{};
  const Blas* library = blas();
  std::snprintf(info.name, sizeof info.name, "%s", processor_name().c_str());
  const char* products = library ? library->name.c_str() : "no BLAS: own matrix kernels";
  const std::string& problem = isa_problem();
  std::snprintf(info.detail, sizeof info.detail, "%s kernels, %s%s%s", isa_name(), products,
                problem.empty() ? "" : "; ", problem.c_str());
  info.total_bytes = memory_limit_bytes();
  info.free_bytes = available_memory_bytes();
  info.units = thread_count();
  return info;
}

void set_option(gsa_device& device, const char* name, double value) {
  const Option& option = find_option(device, name);
  if (!(value >= option.least && value <= option.most && value == std::floor(value)))
    fail(GSA_INVALID_ARGUMENT, "Expected an integer from %.0f to %.0f for the option \"%s\" but received %g",
         option.least, option.most, name, value);
  option.set(device, value);
}

double get_option(gsa_device& device, const char* name) { return find_option(device, name).get(device); }

}  // namespace gsa::cpu
