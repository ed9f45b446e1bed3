#include "blas.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>

#include "../abi/args.h"

namespace gsa::cpu {

namespace {

// Netlib's reference library (libblas.so.3 without an alternative) is slower than our own kernel: only by
// name.
const char* const kLibraries[] = {
#if defined(__APPLE__)
    "/System/Library/Frameworks/Accelerate.framework/Accelerate",
    "/opt/homebrew/opt/openblas/lib/libopenblas.dylib",
#else
    "libopenblas.so.0", "libopenblas.so", "libmkl_rt.so.2", "libmkl_rt.so", "libblis.so.4", "libblis.so",
#endif
};

template <typename Function>
Function symbol(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

std::string openblas_name(void* library) {
  const auto config = symbol<char* (*)()>(library, "openblas_get_config");
  const auto core = symbol<char* (*)()>(library, "openblas_get_corename");
  // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ...": the first two words say it.
  std::string text = config ? config() : "OpenBLAS";
  const size_t second = text.find(' ', text.find(' ') + 1);
  if (second != std::string::npos) text.resize(second);
  return core ? text + " (" + core() + ")" : text;
}

std::string blis_name(void* library) {
  std::string name = "BLIS";
  if (const auto version = symbol<const char* (*)()>(library, "bli_info_get_version_str"))
    name += std::string(" ") + version();
  const auto query = symbol<int (*)()>(library, "bli_arch_query_id");
  const auto text = symbol<const char* (*)(int)>(library, "bli_arch_string");
  return query && text ? name + " (" + text(query()) + ")" : name;
}

struct Library {
  Blas blas{};
  void (*set_threads)(int) = nullptr;           // OpenBLAS, MKL
  void (*set_threads_wide)(int64_t) = nullptr;  // BLIS: dim_t
  std::string problem;                          // why FLASH_GSA_BLAS cannot be used
};

void resolve(Library& found, void* library, const std::string& path) {
  found.blas.sgemm = symbol<CblasSgemm>(library, "cblas_sgemm");
  if (!found.blas.sgemm) return;
  if ((found.set_threads = symbol<void (*)(int)>(library, "openblas_set_num_threads")))
    found.blas.name = openblas_name(library);
  else if ((found.set_threads = symbol<void (*)(int)>(library, "MKL_Set_Num_Threads")))
    found.blas.name = "MKL";
  else if ((found.set_threads_wide = symbol<void (*)(int64_t)>(library, "bli_thread_set_num_threads")))
    found.blas.name = blis_name(library);
  else
    found.blas.name = path.substr(path.rfind('/') + 1);
}

void load_named(Library& found, const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* reason = dlerror();
    found.problem = "could not be loaded: " + std::string(reason ? reason : "unknown reason");
    return;
  }
  resolve(found, library, path);
  if (!found.blas.sgemm) found.problem = "has no cblas_sgemm";
}

// Libraries stay loaded for the life of the process: they own threads.
Library load() {
  Library found;
  const char* wanted = std::getenv("FLASH_GSA_BLAS");
  if (wanted && std::string(wanted) == "none") return found;
  if (wanted && *wanted) {
    load_named(found, wanted);
  } else {
    for (const char* name : kLibraries) {
      void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (library) resolve(found, library, name);
      if (found.blas.sgemm) break;
    }
  }
  return found;
}

// Threads of its own would go on spinning after a call, on the cores that the pool needs for the next op.
void use_one_thread(const Library& found) {
  if (found.set_threads) found.set_threads(1);
  if (found.set_threads_wide) found.set_threads_wide(1);
}

const Library& library() {
  static const Library* const found = [] {
    auto* loaded = new Library(load());
    use_one_thread(*loaded);
    return loaded;
  }();
  return *found;
}

std::atomic<bool> allowed{true};

}  // namespace

const Blas* blas() {
  if (!allowed.load(std::memory_order_relaxed)) return nullptr;
  const Library& found = library();
  return found.blas.sgemm ? &found.blas : nullptr;
}

void check_blas() {
  const std::string& problem = library().problem;
  if (!problem.empty())
    fail(GSA_INVALID_ARGUMENT,
         "Expected FLASH_GSA_BLAS to name a BLAS library, or to be \"none\" or absent, but \"%.120s\" %.200s",
         std::getenv("FLASH_GSA_BLAS"), problem.c_str());
}

bool blas_allowed() { return allowed.load(); }

void allow_blas(bool value) { allowed.store(value); }

}  // namespace gsa::cpu
