#include "library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "../abi/args.h"

namespace gsa::cuda {

Library::Library(const char* title, const char* variable, const char* package, const char* const* names)
    : title_(title) {
  std::string tried;
  const auto attempt = [&](const char* name) {
    handle_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    tried += (tried.empty() ? "" : ", ") + std::string(name);
    return handle_ != nullptr;
  };
  const char* chosen = std::getenv(variable);
  if (chosen && *chosen) {
    attempt(chosen);
  } else {
    for (const char* const* name = names; *name && !attempt(*name); ++name) {
    }
  }
  if (!handle_)
    fail(GSA_UNSUPPORTED, "Expected %s but could not open %.200s; install %s or set %s to its path", title,
         tried.c_str(), package, variable);
}

void* Library::address(const char* name) const {
  void* found = dlsym(handle_, name);
  if (!found)
    fail(GSA_UNSUPPORTED, "Expected %s with the function %s but the one found has none; install a newer one",
         title_, name);
  return found;
}

}  // namespace gsa::cuda
